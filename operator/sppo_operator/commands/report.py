"""`sppo report`: the report of a run in a folder or on a cluster, as a file."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime
from pathlib import Path

from sppo_operator.commands.source import Source
from sppo_operator.errors import MissingError
from sppo_operator.facts import timestamp
from sppo_operator.report.page import report, write_report

STANDARD_OUTPUT = Path("-")


async def report_command(source: Source, output: Path | None) -> int:
    """Write the report and say where it is; returns the exit status. Raises UserError."""
    resource = await source.resource()
    if output == STANDARD_OUTPUT:
        assert isinstance(sys.stdout, io.TextIOWrapper), "a command's output is text"
        sys.stdout.reconfigure(encoding="utf-8")  # as the page says of itself, whatever the terminal takes
        print(report(resource, await source.material(resource, _say), timestamp(datetime.now(UTC))), end="")
        return 0
    path = (output or source.report_path(resource)).absolute()
    if path.is_dir() or not path.resolve().parent.is_dir():
        raise MissingError(f"{path} cannot be a file ({_why_not(path)}): name another one with --output")
    material = await source.material(resource, _say)
    write_report(path, resource, material)
    print(path)
    return 0


def _why_not(path: Path) -> str:
    return "it is a folder" if path.is_dir() else f"there is no folder {path.resolve().parent}"


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
