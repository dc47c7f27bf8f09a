"""The version stands in one place, and `make version` writes its copies."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = (ROOT / "VERSION").read_text().strip()
FILES = [
    *(
        "VERSION",
        "release/version.py",
        "manifests/operator/operator.yaml",
        "manifests/labels/kustomization.yaml",
        "charts/sppo-operator/Chart.yaml",
    ),
    *("operator/sppo_operator/__init__.py", "trainer/sppo_trainer/__init__.py"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of those files, to be written to."""
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def version(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "release/version.py", *arguments]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


def test_the_copies_agree() -> None:
    compared = version(ROOT)
    assert (compared.returncode, compared.stdout) == (0, f"{VERSION}\n"), compared.stderr


@pytest.mark.parametrize("wanted", ["1.2.3", "10.0.0-rc.1"])
def test_all_copies_get_the_new_version_and_nothing_else_changes(tree: Path, wanted: str) -> None:
    assert version(tree, wanted).returncode == 0
    assert version(tree).stdout == f"{wanted}\n"
    assert version(tree, VERSION).returncode == 0
    assert {file: (tree / file).read_bytes() for file in FILES} == {file: (ROOT / file).read_bytes() for file in FILES}


def test_a_copy_that_differs_is_named(tree: Path) -> None:
    copy = tree / "trainer/sppo_trainer/__init__.py"
    copy.write_text(copy.read_text().replace(VERSION, "9.9.9"))
    refused = version(tree)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"error: VERSION has {VERSION}, but trainer/sppo_trainer/__init__.py has 9.9.9: run make version V={VERSION}\n"
    )


@pytest.mark.parametrize("wanted", ["1.2", "v1.2.3", "1.2.3+4", "next"])
def test_what_is_no_version_is_refused(tree: Path, wanted: str) -> None:
    refused = version(tree, wanted)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: V is '{wanted}': give a version such as")
    assert version(tree).stdout == f"{VERSION}\n"


def test_the_changelog_tells_of_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert VERSION in headings[:2]  # above it there may be what is not released yet
