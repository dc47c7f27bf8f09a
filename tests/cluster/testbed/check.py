"""Whether a node can run on this machine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator

from testbed import build, packages
from testbed.shell import succeeds


def why_not(*further: build.Binary, building: bool = False) -> str | None:
    """The first thing that is missing for a node (and for `further` binaries), in one sentence, or None.

    With `building`, what `Node.start` builds or installs itself is no obstacle.
    """
    return next(_obstacles([build.KUBE, build.PAUSE, *further], building), None)


def _obstacles(binaries: list[build.Binary], building: bool) -> Iterator[str]:
    if sys.platform != "linux":
        yield "a node needs Linux"
        return
    if os.geteuid():
        yield "a node needs root, for containers, networks and cgroups"
    if not succeeds("unshare", "--fork", "--pid", "--mount-proc", "--mount", "--net", "--ipc", "true"):
        yield "a node needs namespaces, and unshare is not allowed here"
    if not os.access("/sys/fs/cgroup", os.W_OK):
        yield "a node needs cgroups, and /sys/fs/cgroup is read-only"
    if (absent := packages.missing()) and not (building and shutil.which("apt-get")):
        yield f"a node needs the packages {' '.join(absent)}"
    for binary in binaries:
        if not build.cached(binary) and not building:
            yield f"{binary.name} is not built: `python -m testbed build {binary.name}` does it once, in {binary.minutes} minutes"
        if not build.cached(binary) and not shutil.which("go"):
            yield f"{binary.name} is not built, and there is no Go to build it"
