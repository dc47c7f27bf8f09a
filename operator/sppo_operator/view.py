"""What a person sees of `sppo run`: one live view on a terminal, otherwise one line per event."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live

from sppo_operator.decide import Outcome, Step
from sppo_operator.errors import DamagedError
from sppo_operator.facts import Record, Records, best_iteration
from sppo_operator.results import Results
from sppo_operator.summary import duration, running_steps
from sppo_operator.tables import headline, iterations, printable, samples, share_done, stages

REFRESH_SECONDS = 0.25
LINE_SECONDS = 30.0
LINE_SHARE = 0.25
SHOWN_SAMPLES = 3
PLAIN_COLUMNS = 120


class View(ABC):
    """Told about events as they happen, and of the records many times a second."""

    console: Console

    @abstractmethod
    def shown(self) -> AbstractContextManager[object]:
        """Hold the terminal; afterwards it is as it was."""

    @abstractmethod
    def show(self, records: Records) -> None:
        """Show how far the running stages are."""

    def say(self, text: str) -> None:
        self.console.print(printable(text), soft_wrap=True)

    def started(self, step: Step, attempt: int) -> None:
        self.say(f"{_clock()} {step}: started" + (f", attempt {attempt}" if attempt > 1 else ""))

    def ended(self, step: Step, record: Record) -> None:
        if record.attempts.last is Outcome.SUCCEEDED:
            text = f"done in {duration(record.newest[-1].seconds)}: {headline(step, record)}"
        else:
            text = f"{record.newest[-1].outcome.value}: {record.newest[-1].message}"
        self.say(f"{_clock()} {step}: {text}")

    def warn(self, message: str) -> None:
        print(printable(message), file=sys.stderr)

    def finish(self, records: Records, results: Results, report: Path) -> None:
        """The table of the iterations, answers before and after, and where the report is."""
        self.console.print(iterations(records, self.console.width))
        best = best_iteration(records)
        try:
            chosen = results.samples(best)[:SHOWN_SAMPLES] if best is not None else []
        except DamagedError as error:
            self.warn(f"warning: {error}")
            chosen = []
        if chosen:
            self.console.print(samples(chosen))
        self.say(f"Report: {report}")


class PlainView(View):
    """One line per event, and progress at most every 30 s unless a quarter more is done."""

    def __init__(self, stream: TextIO) -> None:
        self.console = Console(file=stream, width=PLAIN_COLUMNS, force_terminal=False)
        self._said: dict[Step, tuple[float, float]] = {}

    def shown(self) -> AbstractContextManager[object]:
        return nullcontext()

    def started(self, step: Step, attempt: int) -> None:
        self._said[step] = (time.monotonic(), 0.0)
        super().started(step, attempt)

    def show(self, records: Records) -> None:
        for step in running_steps(records):
            progress = records[step].progress
            if progress is None:
                continue
            (when, share), now = self._said[step], time.monotonic()
            done = share_done(progress)
            if done == 1 or (now < when + LINE_SECONDS and done < share + LINE_SHARE):
                continue
            self._said[step] = (now, done)
            self.say(f"{_clock()} {step}: {progress['done']}/{progress['total']} {_pace(progress, None)}")


class LiveView(View):
    """A table of the stages that is drawn again in place; events scroll above it."""

    def __init__(self) -> None:
        self.console = Console()
        # Drawn from the executor's own loop: a second thread would break the signals' and the fork's assumptions.
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._drawn = 0.0
        self._first: dict[Step, tuple[float, int]] = {}

    def shown(self) -> AbstractContextManager[object]:
        return self._live

    def started(self, step: Step, attempt: int) -> None:
        self._first.pop(step, None)
        super().started(step, attempt)

    def show(self, records: Records) -> None:
        now = time.monotonic()
        if now < self._drawn + REFRESH_SECONDS:
            return
        self._drawn = now
        paces = {step: self._speed(step, progress, now) for step in records if (progress := records[step].progress)}
        self._live.update(Group("", stages(records, paces)), refresh=True)

    def _speed(self, step: Step, progress: Mapping[str, Any], now: float) -> str:
        when, done = self._first.setdefault(step, (now, progress["done"]))
        speed = (progress["done"] - done) / (now - when) if now > when else None
        return f"{progress['done']}/{progress['total']} {_pace(progress, speed or None)}"


def _pace(progress: Mapping[str, Any], speed: float | None) -> str:
    parts = [str(progress["unit"])]
    if speed is not None:
        parts.append(f"{speed:.3g}/s")
    if progress.get("secondsLeft") is not None:
        parts.append(f"{duration(progress['secondsLeft'])} left")
    parts += [f"{name} {value}" for name, value in progress.get("figures", {}).items()]
    return ", ".join(parts)


def _clock() -> str:
    return time.strftime("%H:%M:%S")
