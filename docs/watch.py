"""Draws docs/watch.svg: the board of a run as `sppo watch` shows it now.

python docs/watch.py DIR, where DIR is the --workspace of a run under way.
"""

from __future__ import annotations

import io
import re
import sys
import time
from pathlib import Path

from rich.console import Console
from sppo_operator.commands.board import Scene, board, utc_now
from sppo_operator.commands.overview import shown_records
from sppo_operator.commands.view import Speeds, pace
from sppo_operator.store import RunFile

COLUMNS = 120
SECONDS = 20
"""How long the speed is measured."""


def picture(folder: Path) -> str:
    speeds, paces, end = Speeds(), {}, time.monotonic() + SECONDS
    while time.monotonic() < end:
        resource = RunFile(folder).read()
        if resource is None:
            sys.exit(f"{folder} holds no run.yaml: give the --workspace of a run")
        records = shown_records(resource)
        for step, record in records.items():
            if progress := record.progress:
                speed = speeds.of(step, progress, time.monotonic())
                paces[step] = f"{progress['done']}/{progress['total']} {pace(progress, speed)}"
        time.sleep(1)
    console = Console(file=io.StringIO(), width=COLUMNS, record=True, force_terminal=True)
    console.print(board(Scene(resource=resource, records=records, now=utc_now(), paces=paces), COLUMNS))
    drawn = console.export_svg(title="sppo watch demo", unique_id="watch")
    return re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)  # they would be fetched


if __name__ == "__main__":
    Path(__file__).with_name("watch.svg").write_text(picture(Path(sys.argv[1])), "utf-8")
