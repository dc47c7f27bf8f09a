"""What this machine can carry, within the limits of the control group (such as a container's)."""

from __future__ import annotations

import math
import os
from pathlib import Path

TWO_STAGES_BYTES = 8 * 2**30
"""Free memory for two stages at once: a model of about half a billion weights trains and answers in fp32 in it."""

CONTROL_GROUP = Path("/sys/fs/cgroup")


def usable_cores(control_group: Path = CONTROL_GROUP) -> int:
    """The cores that this process may use: a container's quota of processor time counts as whole cores, rounded up."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (control_group / "cpu.max").read_text("ascii").split()
    except FileNotFoundError:  # the root group, or no control groups of version 2
        return cores
    return cores if quota == "max" else min(cores, math.ceil(int(quota) / int(period)))


def why_one_stage() -> str:
    """What stands against two stages at once; empty if nothing does."""
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return "a GPU serves one stage at a time, since a sampling engine fills it"
    if usable_cores() < 2:
        return "there is one core"
    if (free := available_bytes()) < TWO_STAGES_BYTES:
        return f"{free / 2**30:.1f} GiB of memory are free, less than {TWO_STAGES_BYTES // 2**30}"
    return ""


def available_bytes(control_group: Path = CONTROL_GROUP) -> float:
    """Memory that can be had without swapping, within the control group's limit if there is one."""
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    kibibytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return min(kibibytes * 1024, _control_group_bytes(control_group))


def _control_group_bytes(folder: Path) -> float:
    try:
        limit = (folder / "memory.max").read_text("ascii").strip()
        used = int((folder / "memory.current").read_text("ascii"))
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
    except FileNotFoundError:  # the root group, or no control groups of version 2
        return math.inf
    # Files that were read once count as used, and are dropped as soon as somebody needs the memory.
    droppable = int(statistics.get("inactive_file", 0))
    return math.inf if limit == "max" else int(limit) - used + droppable
