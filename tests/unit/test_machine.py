"""Cores and free memory: the machine's, within the control group's limits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sppo_operator.commands import machine
from sppo_operator.commands.machine import TWO_STAGES_BYTES, available_bytes, usable_cores, why_one_stage

CORES = len(os.sched_getaffinity(0))


def control_group(folder: Path, limit: str, used: int, inactive_file: int = 0) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 7\nfile 9\ninactive_file {inactive_file}\nactive_file 5\n")
    return folder


@pytest.mark.parametrize(
    ("limit", "used", "inactive_file", "free"),
    [("4096", 1024, 0, 3072), ("4096", 4096, 0, 0), ("4096", 4096, 1024, 1024)],
    ids=["half used", "used up", "file cache can be dropped"],
)
def test_the_control_groups_limit_counts(tmp_path: Path, limit: str, used: int, inactive_file: int, free: int) -> None:
    assert available_bytes(control_group(tmp_path, limit, used, inactive_file)) == free


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", CORES), ("100000 100000", 1), ("50000 100000", 1), ("6400000 100000", min(CORES, 64))],
    ids=["none", "one", "half", "64"],
)
def test_a_quota_of_processor_time_counts_as_cores(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert usable_cores(tmp_path) == cores


def test_without_a_quota_all_cores_count(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == CORES


@pytest.mark.parametrize(
    ("cores", "free", "reason"),
    [
        (1, TWO_STAGES_BYTES, "there is one core"),
        (2, TWO_STAGES_BYTES - 2**30, "7.0 GiB of memory are free, less than 8"),
        (2, TWO_STAGES_BYTES, ""),
    ],
)
@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="with a GPU that is the reason")
def test_why_stages_take_turns(monkeypatch: pytest.MonkeyPatch, cores: int, free: float, reason: str) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    monkeypatch.setattr(machine, "available_bytes", lambda: free)
    assert why_one_stage() == reason


def test_without_a_limit_the_machine_counts(tmp_path: Path) -> None:
    unlimited = available_bytes(control_group(tmp_path, "max", 1))
    assert unlimited == pytest.approx(available_bytes(tmp_path / "none"), rel=0.5)
    assert unlimited > 2**20
