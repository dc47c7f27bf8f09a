"""Build, before any test, what the cluster tests need: the node's binaries and the images. Says what it does, and why not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import images
from testbed import packages, why_not
from testbed.build import BINARIES, built

STEPS: dict[str, Callable[[], object]] = {
    "Debian packages": packages.install,
    **{name: lambda binary=binary: built(binary) for name, binary in BINARIES.items()},
    "image of the operator": images.operator_image,
    "image of the stand-in": images.standin_image,
    "image of the trainer": images.trainer_image,
}


def main() -> None:
    if os.environ.get("SPPO_TEST_KUBECONFIG"):
        return
    if missing := why_not(building=True):
        print(f"The cluster tests will be skipped: {missing}")
        return
    for name, build in STEPS.items():
        began = time.monotonic()
        build()
        print(f"{name}: ready after {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
