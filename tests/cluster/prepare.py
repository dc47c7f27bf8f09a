"""Build, before any test, what tests need: the chart's tools, the node's binaries and the images. Says what it does, and why not."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping

import images
from testbed import packages, why_not
from testbed.build import BINARIES, OF_THE_CHART, Binary, built, cached
from testbed.monitors import monitor_definitions

Steps = Mapping[str, Callable[[], object]]


def binaries(*wanted: Binary) -> Steps:
    return {binary.name: lambda binary=binary: built(binary) for binary in wanted}


FOR_THE_CHART = binaries(*OF_THE_CHART)
FOR_THE_CLUSTER: Steps = {
    "Debian packages": packages.install,
    **binaries(*(binary for binary in BINARIES.values() if binary not in OF_THE_CHART)),
    "definitions of Prometheus Operator's resources": monitor_definitions,
    "image of the operator": images.operator_image,
    "image of the stand-in": images.standin_image,
    "image of the trainer": images.trainer_image,
}


def main() -> None:
    if missing := packages.no_browser():
        print(f"The report's tests in a browser will be skipped: {missing}")
    if shutil.which("go") is None and not all(map(cached, OF_THE_CHART)):
        print("The chart's tests will be skipped: there is no Go to build Helm")
    else:
        carry_out(FOR_THE_CHART)
    if os.environ.get("SPPO_TEST_KUBECONFIG"):
        return
    if missing := why_not(building=True):
        print(f"The cluster tests will be skipped: {missing}")
        return
    carry_out(FOR_THE_CLUSTER)


def carry_out(steps: Steps) -> None:
    for name, build in steps.items():
        began = time.monotonic()
        build()
        print(f"{name}: ready after {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
