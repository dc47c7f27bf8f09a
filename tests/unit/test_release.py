"""What a release brings along: the bill of materials of an image, and the verdict on known vulnerabilities."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

STATUS = """\
Package: libstdc++6
Status: install ok installed
Architecture: amd64
Source: gcc-12 (12.2.0-14)
Version: 12.2.0-14+deb12u1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The files of an image that the bill reads."""
    write(tmp_path / "etc/os-release", 'ID=debian\nVERSION_ID="12"\n')
    write(tmp_path / "var/lib/dpkg/status", STATUS)
    for name, metadata in {
        "opt/sppo/lib/site-packages/PyYAML-6.0.2.dist-info": "Name: PyYAML\nVersion: 6.0.2\n",
        "usr/local/lib/pip-26.3.dist-info": "Name: pip\nVersion: 26.3\nLicense-Expression: MIT\n",
        "proc/1/root/none-1.dist-info": "Name: none\nVersion: 1\n",
    }.items():
        write(tmp_path / name / "METADATA", f"Metadata-Version: 2.4\n{metadata}")
    return tmp_path


def bill(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-", "sppo-operator", "1.2.3", str(root)]
    script = (ROOT / "release/sbom.py").read_text()  # as an image gets it
    return subprocess.run(command, input=script, capture_output=True, text=True, check=False)


def test_a_bill_lists_installed_debian_packages_python_packages_and_the_interpreter(image: Path) -> None:
    done = bill(image)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert found["metadata"]["component"]["version"] == "1.2.3"
    assert [component["purl"] for component in found["components"]] == [
        "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12&upstream=gcc-12%4012.2.0-14",
        f"pkg:generic/python@{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}",
        "pkg:pypi/pip@26.3",
        "pkg:pypi/pyyaml@6.0.2",
    ]
    assert [component.get("licenses") for component in found["components"]][2] == [{"expression": "MIT"}]


def test_an_image_that_hides_its_debian_packages_gets_no_bill(image: Path) -> None:
    write(image / "var/lib/dpkg/status", "")
    done = bill(image)
    assert (done.returncode, done.stdout) == (1, "")
    assert "names no Debian package, so the bill would lack them" in done.stderr


def test_distroless_images_keep_one_file_per_package(image: Path) -> None:
    (image / "var/lib/dpkg/status").unlink()
    write(image / "var/lib/dpkg/status.d/tzdata", "Package: tzdata\nArchitecture: all\nVersion: 2025b-0\n")
    write(image / "var/lib/dpkg/status.d/tzdata.md5sums", "0123 usr/share/zoneinfo/UTC\n")
    purls = [component["purl"] for component in json.loads(bill(image).stdout)["components"]]
    assert purls[0] == "pkg:deb/debian/tzdata@2025b-0?arch=all&distro=debian-12"
    assert len(purls) == 4


CLEAN = {"name": "rich", "version": "15.0.0", "vulns": []}
SKIPPED = {"name": "kopf", "skip_reason": "kopf was not found"}
FAULTY = {
    "name": "jinja2",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.1"]}],
}
VERDICTS = {
    "all clean": ([CLEAN], 0, "LOCK: 1 of 1 packages looked up, 0 vulnerable\n", ""),
    "some vulnerable": (
        [CLEAN, FAULTY],
        1,
        "LOCK: jinja2 2.0: PYSEC-1 CVE-1, mended in 2.1\nLOCK: 2 of 2 packages looked up, 1 vulnerable\n",
        "",
    ),
    "all skipped": (
        [SKIPPED],
        2,
        "LOCK: 0 of 1 packages looked up, 0 vulnerable\n",
        "LOCK: NOT JUDGED: kopf; the first: kopf was not found\n",
    ),
    "one skipped": (
        [CLEAN, SKIPPED],
        2,
        "LOCK: 1 of 2 packages looked up, 0 vulnerable\n",
        "LOCK: NOT JUDGED: kopf; the first: kopf was not found\n",
    ),
    "skipped and vulnerable": (
        [SKIPPED, FAULTY],
        1,
        "LOCK: jinja2 2.0: PYSEC-1 CVE-1, mended in 2.1\nLOCK: 1 of 2 packages looked up, 1 vulnerable\n",
        "LOCK: NOT JUDGED: kopf; the first: kopf was not found\n",
    ),
    "nothing to look up": ([], 2, "", "error: LOCK names no package: give a lock such as requirements/operator.txt\n"),
}


@pytest.mark.parametrize(("packages", "status", "out", "err"), VERDICTS.values(), ids=VERDICTS)
def test_only_what_was_looked_up_is_called_clean(
    tmp_path: Path, packages: list[dict[str, Any]], status: int, out: str, err: str
) -> None:
    done = scan(tmp_path, f"echo '{json.dumps({'dependencies': packages})}'; exit 0")
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err)


def test_an_audit_that_breaks_is_no_verdict(tmp_path: Path) -> None:
    done = scan(tmp_path, "echo no network >&2; exit 1")
    assert (done.returncode, done.stderr) == (2, "error: LOCK could not be audited: no network\n")


def scan(folder: Path, audit: str) -> subprocess.CompletedProcess[str]:
    """scan.py in an environment whose pip-audit is this shell script."""
    write(folder / "bin/pip-audit", f"#!/bin/sh\n{audit}\n")
    (folder / "bin/pip-audit").chmod(0o755)
    (folder / "bin/python").symlink_to(sys.executable)
    command = [folder / "bin/python", ROOT / "release/scan.py", "LOCK"]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONEXECUTABLE": ""}
    )
