"""The control groups of a node, all below one, so that they can be found and removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from testbed.shell import ClusterError, wait_until

_MOUNT = Path("/sys/fs/cgroup")
_CONTROLLERS = {"cpu", "cpuset", "hugetlb", "io", "memory", "pids"}


def create(root_name: str, name: str) -> str:
    """The path of a group for one kubelet, which refuses a root that does not exist."""
    for root in _groups(root_name):
        _hand_down(root.parent)
        root.mkdir(exist_ok=True)
        _hand_down(root)
        (root / name).mkdir(exist_ok=True)
    return f"/{root_name}/{name}"


def _hand_down(group: Path) -> None:
    """In version 2 a group has the controllers that its parent hands down."""
    if not (group / "cgroup.subtree_control").exists():
        return
    wanted = sorted(_CONTROLLERS.intersection((group / "cgroup.controllers").read_text().split()))
    try:
        (group / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in wanted))
    except OSError as error:
        raise ClusterError(
            f"{group} does not hand down its controllers ({error}): a node needs its own cgroups"
        ) from error


def remove(root_name: str) -> bool:
    """Removes the emptied groups; says whether there were any."""
    present = [group for group in _groups(root_name) if group.exists()]
    # A group counts its processes a moment longer than they live.
    wait_until(lambda: not any(map(_left, present)), seconds=10, failure=lambda: f"cgroups /{root_name} are in use")
    return bool(present)


def _left(group: Path) -> bool:
    folders = [group, *(path for path in group.rglob("*") if path.is_dir())]
    for folder in sorted(folders, reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
    return group.exists()


def _groups(name: str) -> Iterator[Path]:
    """Version 2 has one hierarchy, version 1 one for each controller (links are other names of these)."""
    hierarchies = [_MOUNT] if (_MOUNT / "cgroup.procs").exists() else sorted(_MOUNT.iterdir())
    for hierarchy in hierarchies:
        if (hierarchy / "cgroup.procs").exists() and not hierarchy.is_symlink():
            yield hierarchy / name
