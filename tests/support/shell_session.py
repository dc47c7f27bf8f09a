"""Blocks of commands from a page, run by bash one after the other as a reader would."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

from documents import ROOT, Block

NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "dist", "*.egg-info")
SCRIPT = """\
set -euo pipefail
if [ -e "$STATE" ]; then . "$STATE"; fi
%s
{ export -p; printf 'cd %%q\\n' "$PWD"; } > "$STATE"
"""


def copy_tree(to: Path) -> Path:
    """A copy of this tree as a user has it after `make demo`: everything is installed and the model is unpacked (empty)."""
    shutil.copytree(ROOT, to, ignore=NOT_COPIED)
    (to / ".venv").mkdir()
    for entry in (ROOT / ".venv").iterdir():
        if entry.suffix != ".stamp":
            (to / ".venv" / entry.name).symlink_to(entry)
    for stamp in ("run.stamp", "test.stamp"):  # newer than the locks, so that make installs nothing
        (to / ".venv" / stamp).touch()
    (to / ".demo/models/smollm2-135m-instruct").mkdir(parents=True)
    return to


class Session:
    """Where and with which environment a page's blocks run; what one exports, the next sees."""

    def __init__(self, folder: Path, state: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = {**environment, "STATE": str(state)}
        self.groups: list[int] = []

    def run(self, block: Block, seconds: float) -> str:
        """What the block printed. Raises AssertionError if a command failed or took longer than `seconds`."""
        state = Path(self.environment["STATE"])
        shown = state.with_name(f"{block.page.stem}-{block.line}.log")
        with shown.open("wb") as output:
            bash = subprocess.Popen(
                ["bash", "-c", SCRIPT % block.script],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output if not block.until else subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if block.until:
            return self._until(bash, block, seconds)
        try:
            status = bash.wait(seconds)
        except subprocess.TimeoutExpired:
            self._end(bash.pid)
            bash.wait()
            raise AssertionError(
                f"{block}: not over after {seconds:.0f} s; it printed:\n{tail(shown.read_text())}"
            ) from None
        if self._has_more(bash.pid):
            self.groups.append(bash.pid)
        assert status == 0, f"{block} ended with {status}; it printed:\n{tail(shown.read_text())}"
        return shown.read_text()

    def _until(self, bash: subprocess.Popen[bytes], block: Block, seconds: float) -> str:
        assert bash.stdout is not None
        timer = threading.Timer(seconds, self._end, [bash.pid])
        timer.start()
        printed = ""
        for line in bash.stdout:
            printed += line.decode(errors="replace")
            if block.until in printed:
                break
        timer.cancel()
        self._end(bash.pid)
        bash.wait()
        bash.stdout.close()
        assert block.until in printed, f"{block} did not print {block.until!r} within {seconds:.0f} s:\n{tail(printed)}"
        return printed

    def close(self) -> None:
        """End what blocks left running in the background."""
        for group in self.groups:
            self._end(group)

    def _has_more(self, group: int) -> bool:
        """Whether a block left something running; if not, the number may soon be another group's."""
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        return True

    def _end(self, group: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def tail(text: str, lines: int = 40) -> str:
    return "\n".join(text.splitlines()[-lines:])
