"""Free memory: the machine's, within the control group's limit."""

from __future__ import annotations

from pathlib import Path

import pytest
from sppo_operator.machine import available_bytes


def control_group(folder: Path, limit: str, used: int) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    return folder


@pytest.mark.parametrize(("limit", "used", "free"), [("4096", 1024, 3072), ("4096", 4096, 0)])
def test_the_control_groups_limit_counts(tmp_path: Path, limit: str, used: int, free: int) -> None:
    assert available_bytes(control_group(tmp_path, limit, used)) == free


def test_without_a_limit_the_machine_counts(tmp_path: Path) -> None:
    unlimited = available_bytes(control_group(tmp_path, "max", 1))
    assert unlimited == pytest.approx(available_bytes(tmp_path / "none"), rel=0.5)
    assert unlimited > 2**20
