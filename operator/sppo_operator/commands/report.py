"""`sppo report`: the report of a run in a folder or on a cluster, as a file."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sppo_operator.commands.source import Source
from sppo_operator.errors import MissingError
from sppo_operator.report.page import write_report

STOPPING = (signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C is asyncio's; these would leave the pod that reads."""


async def report_command(source: Source, output: Path | None) -> int:
    """Write the report and say where it is; returns the exit status. Raises UserError."""
    resource = await source.resource()
    path = (output or source.report_path(resource)).absolute()
    if path.is_dir() or not path.parent.is_dir():
        raise MissingError(f"{path} cannot be a file ({_why_not(path)}): name another one with --output")
    with _stopping() as received:
        try:
            material = await source.material(resource, _say)
        except asyncio.CancelledError:
            if not received:
                raise
            return 128 + received[0]
    write_report(path, resource, material)
    print(path)
    return 0


def _why_not(path: Path) -> str:
    return "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """Cancel the command at a signal that asks it to stop, and collect the signal."""
    received: list[int] = []
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None, "a command runs in a task"

    def stop(number: int) -> None:
        received.append(number)
        task.cancel()

    for number in STOPPING:
        loop.add_signal_handler(number, stop, number)
    try:
        yield received
    finally:
        for number in STOPPING:
            loop.remove_signal_handler(number)
