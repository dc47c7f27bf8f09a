"""What this machine can carry."""

from __future__ import annotations

import os
from pathlib import Path

TWO_STAGES_BYTES = 8 * 2**30
"""Free memory for two stages at once: a model of about half a billion weights trains and answers in fp32 in it."""

CONTROL_GROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    return len(os.sched_getaffinity(0))


def can_run_two_stages() -> bool:
    """Two cores and 8 GiB of free memory; a GPU serves one stage at a time, since a sampling engine fills it."""
    return usable_cores() >= 2 and available_bytes() >= TWO_STAGES_BYTES and not any(Path("/dev").glob("nvidia[0-9]*"))


def available_bytes(control_group: Path = CONTROL_GROUP) -> float:
    """Memory that can be had without swapping, within the control group's limit if there is one."""
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    kibibytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return min(kibibytes * 1024, _control_group_bytes(control_group))


def _control_group_bytes(folder: Path) -> float:
    try:
        limit = (folder / "memory.max").read_text("ascii").strip()
        used = int((folder / "memory.current").read_text("ascii"))
    except FileNotFoundError:  # the root group, or no control groups of version 2
        return float("inf")
    return float("inf") if limit == "max" else int(limit) - used
