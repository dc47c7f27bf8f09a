"""What the stand-in notes in the workspace while it works for a run, and how a test lets it go on."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Notes:
    """The folder of the notes about one run."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "standin"

    def until_held(self, step: str, seconds: float) -> None:
        """Wait for a worker that holds."""
        eventually((self.folder / f"{step}.hangs").exists, seconds)

    def release(self) -> None:
        """Let all go on that hold, now and later."""
        (self.folder / "released").touch()

    def starts(self) -> dict[str, list[dict[str, Any]]]:
        """What each start of a step noted about itself."""
        return {file.stem: _lines(file) for file in sorted(self.folder.glob("*.starts"))}

    def start_counts(self) -> dict[str, int]:
        return {step: len(starts) for step, starts in self.starts().items()}

    def crowded(self) -> list[str]:
        """Steps that a process did while another one did the same part of them."""
        return [file.stem for file in self.folder.glob("*.starts") if not all(start["alone"] for start in _lines(file))]

    def done_twice(self) -> list[tuple[str, str]]:
        """Chunks, with their steps, that were begun or kept again after they had been kept."""
        kept: Counter[tuple[str, str]] = Counter()
        again = []
        for line in _lines(self.folder / "work.jsonl"):
            chunk = (line["step"], line["chunk"])
            if kept[chunk]:
                again.append(chunk)
            kept[chunk] += line["event"] == "kept"
        return again


def eventually(condition: Callable[[], Any], seconds: float) -> None:
    """Wait for something that no watch tells of, such as a file."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s"
        time.sleep(0.1)


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]
