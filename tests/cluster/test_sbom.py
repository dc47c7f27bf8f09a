"""The bills of materials of the images: all that was locked is in them, and the Debian packages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import images
import pytest
from packaging.markers import Marker
from testbed import why_not

ROOT = Path(__file__).parents[2]
VERSION = (ROOT / "VERSION").read_text().strip()
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"}


def locked(lock: str, python: str) -> set[str]:
    """The package URLs of what the lock has for this Python on Linux."""
    here = LINUX | {"python_version": python.rpartition(".")[0], "python_full_version": python}
    lines = re.findall(r"^(\S+)==(\S+)(?: ; (.+?))? *\\?$", (ROOT / "requirements" / lock).read_text(), re.MULTILINE)
    return {
        f"pkg:pypi/{name}@{version}" for name, version, marker in lines if not marker or Marker(marker).evaluate(here)
    }


VENDORED = """
import sysconfig
from pathlib import Path

print(*(folder.stem for folder in Path(sysconfig.get_path("purelib")).glob("*/_vendor/*.dist-info")))
"""
"""Run in an image, it prints what other packages bring with them and no lock names."""


def vendored(image: str) -> set[str]:
    """Their package URLs."""
    found = (folder.rpartition("-") for folder in images.output_in(image, "python", "-", stdin=VENDORED).split())
    return {f"pkg:pypi/{re.sub('[-_.]+', '-', name).lower()}@{version}" for name, _, version in found}


BILLS = {
    "operator": (images.operator_image, "operator.txt"),
    "trainer": (images.trainer_image, "trainer-vllm-cpu.txt"),
}


@pytest.mark.parametrize(("build", "lock"), BILLS.values(), ids=BILLS)
def test_a_bill_has_what_was_locked_and_what_debian_brings(
    build: Callable[[], str], lock: str, request: pytest.FixtureRequest
) -> None:
    if missing := why_not(building=True):
        pytest.skip(f"no image can be built here: {missing}")
    name = f"sppo-{request.node.callspec.id}"
    script = (ROOT / "release/sbom.py").read_text()
    image = build()
    bill = json.loads(images.output_in(image, "python", "-", name, VERSION, stdin=script))
    purls = {component["purl"] for component in bill["components"]}
    python = next(purl.partition("@")[2] for purl in purls if purl.startswith("pkg:generic/python@"))
    ours = {f"pkg:pypi/{name}@{VERSION}"}
    assert {purl for purl in purls if purl.startswith("pkg:pypi/")} == locked(lock, python) | vendored(image) | ours
    debian = {purl.partition("@")[0] for purl in purls if purl.startswith("pkg:deb/debian/")}
    assert {"pkg:deb/debian/libc6", "pkg:deb/debian/libssl3", "pkg:deb/debian/libstdc%2B%2B6"} <= debian
