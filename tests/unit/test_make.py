"""What `make` calls before anything is installed, or with a value that a user typed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "manifests/examples/demo.yaml"


def seeded(seed: str, to: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "demo/seeded.py", DEMO, seed, to]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_seed_0_is_the_example_itself(tmp_path: Path) -> None:
    assert seeded("0", tmp_path / "new/demo.yaml").returncode == 0
    assert (tmp_path / "new/demo.yaml").read_text() == DEMO.read_text()


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    assert seeded("7", tmp_path / "demo.yaml").returncode == 0
    text = (tmp_path / "demo.yaml").read_text()
    assert text == DEMO.read_text().replace("seed: 0", "seed: 7").replace("name: demo\n", "name: demo-7\n")


@pytest.mark.parametrize("seed", ["abc", "", "-1", "1.5", "2147483648", "9" * 5000], ids=lambda seed: seed[:12])
def test_a_bad_seed_is_named_and_touches_nothing(tmp_path: Path, seed: str) -> None:
    file = tmp_path / "demo.yaml"
    file.write_text("as it was")
    refused = seeded(seed, file)
    assert refused.returncode == 1
    assert refused.stderr == f'error: SEED is "{seed}": give a whole number from 0 to 2147483647\n'
    assert file.read_text() == "as it was"


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


INSTALLS = {
    "not root": ("1000", "", "sudo apt-get install python3.99-venv), then run this again"),
    "apt without the package": ("0", "exit 100", "and neither python3.99-venv nor python3-venv helped"),
    "apt with another Python's package": ("0", "", "and neither python3.99-venv nor python3-venv helped"),
}


@pytest.mark.parametrize(("user", "apt", "said"), INSTALLS.values(), ids=INSTALLS)
def test_a_python_that_makes_no_environments_is_named(tmp_path: Path, user: str, apt: str, said: str) -> None:
    script = tmp_path / "requirements/install.sh"
    script.parent.mkdir()
    shutil.copy(ROOT / "requirements/install.sh", script)
    program(tmp_path / "bin/python", 'case "$*" in *-venv*) echo python3.99-venv;; "-m venv"*) exit 1;; esac')
    program(tmp_path / "bin/id", f"echo {user}")
    program(tmp_path / "bin/apt-get", f'echo "$@" >> {tmp_path}/apt.log\n{apt}')
    path = f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}"
    refused = subprocess.run(
        [script], env={"PATH": path, "PYTHON": "python"}, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 69
    assert said in refused.stderr
    asked = (tmp_path / "apt.log").read_text().splitlines() if user == "0" else []
    assert asked[:2] == (["-qq update", "-qq install -y python3.99-venv"] if user == "0" else [])
