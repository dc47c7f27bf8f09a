"""A stage that was killed and started again ends in the digests of an undisturbed one, wherever it was killed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pipeline
import pytest

KILLS = int(os.environ.get("SPPO_KILLS", "3"))
WRITES = {"os.link", "os.rename", "os.remove", "os.mkdir", "os.chmod", "os.rmdir"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after one undisturbed iteration."""
    root = pipeline.make_workspace(tmp_path_factory.mktemp("undisturbed"))
    pipeline.run_all(root)
    return root


@pytest.fixture
def before(finished: Path, tmp_path: Path) -> Callable[[str, str], Path]:
    """Copies of the workspace in which a stage has not run."""

    def copy(stage: str, name: str) -> Path:
        root = tmp_path / name
        shutil.copytree(finished, root)
        folder = root / "default/tiny"
        for undone in pipeline.STAGES[pipeline.STAGES.index(stage) :]:
            shutil.rmtree(folder / ("prepare" if undone == "prepare" else f"i1/{undone}"), ignore_errors=True)
        return root

    return copy


class Killed(BaseException):
    """Stands for SIGKILL: from here on, nothing is written any more."""


class Killer:
    """Lets the n-th write to a folder, and every later one, fail: an audit hook sees all that Python writes."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.left = self.seen = 0
        sys.addaudithook(self._hook)

    def __call__(self, folder: Path, after: int) -> None:
        self.folder, self.left, self.seen = str(folder), after, 0

    def off(self) -> None:
        self.folder = None

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.folder is None or not (event in WRITES or (event == "open" and _writes(args))):
            return
        if not any(isinstance(path, str | os.PathLike) and self._concerns(str(path)) for path in args[:2]):
            return
        self.seen += 1
        self.left -= 1
        if self.left < 0:
            raise Killed

    def _concerns(self, path: str) -> bool:
        """Paths in the folder; and once dead, the relative ones by which a tree is removed."""
        assert self.folder is not None
        return path.startswith(self.folder) or (self.left <= 0 and not path.startswith("/"))


def _writes(args: tuple[Any, ...]) -> bool:
    mode, flags = args[1], args[2]
    return (
        any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & (os.O_WRONLY | os.O_RDWR))
    )


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    killer = Killer()
    yield killer
    killer.off()


def iteration_of(stage: str) -> int:
    return 0 if stage == "prepare" else 1


@pytest.mark.parametrize("stage", pipeline.STAGES)
def test_killed_at_every_write_point(
    stage: str, finished: Path, before: Callable[[str, str], Path], killer: Killer
) -> None:
    wanted = pipeline.digests(finished)
    points = 0
    while True:
        root = before(stage, f"{stage}-{points}")
        document = pipeline.config(stage, iteration_of(stage), root)
        killer(root / "default", after=points)
        try:
            died = pipeline.run_inside(stage, document, root).exit_code != 0
        except Killed:
            died = True
        finally:
            killer.off()
        if not died:
            break
        again = pipeline.run_inside(stage, document, root)
        assert again.exit_code == 0, again.result
        found = pipeline.digests(root)
        assert found == {name: digest for name, digest in wanted.items() if name in found}, f"killed at write {points}"
        assert any(name.endswith(stage) for name in found)
        shutil.rmtree(root)
        points += 1
    assert points > 10, "the killer saw too few writes to mean anything"


@pytest.mark.timeout(600 + 60 * KILLS)
@pytest.mark.parametrize("stage", pipeline.STAGES)
def test_kill_9_at_a_random_moment(stage: str, finished: Path, before: Callable[[str, str], Path]) -> None:
    wanted = pipeline.digests(finished)
    chance = random.Random(stage)
    struck = 0
    for number in range(KILLS):
        root = before(stage, f"{stage}-{number}")
        document = pipeline.config(stage, iteration_of(stage), root)
        process = pipeline.start(stage, document, root / "log")
        wait_for_work(process, root / "default/tiny" / ("prepare" if stage == "prepare" else f"i1/{stage}"))
        try:
            process.wait(timeout=chance.uniform(0, 0.6))
        except subprocess.TimeoutExpired:
            struck += 1
        pipeline.kill(process)
        again = pipeline.run_inside(stage, document, root)
        assert again.exit_code == 0, again.result
        found = pipeline.digests(root)
        assert found == {name: digest for name, digest in wanted.items() if name in found}
        shutil.rmtree(root)
    assert struck > 0, "every kill came after the end of the stage"


def wait_for_work(process: subprocess.Popen[str], folder: Path) -> None:
    """Until the stage has written something, or ended."""
    deadline = time.monotonic() + 240
    while not folder.exists() and process.poll() is None:
        assert time.monotonic() < deadline, f"{folder} did not appear"
        try:
            process.wait(timeout=0.02)
        except subprocess.TimeoutExpired:
            continue
