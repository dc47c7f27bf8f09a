"""What a person sees of a run: one live board on a terminal, otherwise one line per event."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.control import Control
from rich.live import Live

from sppo_operator.commands.board import Scene, board, utc_now
from sppo_operator.commands.overview import Note, Resource, attention, is_retrying
from sppo_operator.commands.tables import headline, iterations, printable, samples, share_done
from sppo_operator.decide import Outcome, Step
from sppo_operator.errors import DamagedError
from sppo_operator.facts import Record, Records, best_iteration
from sppo_operator.results import Results
from sppo_operator.summary import duration, running_steps

REFRESH_SECONDS = 0.25
LINE_SECONDS = 30.0
LINE_SHARE = 0.25
PLAIN_COLUMNS = 120
KEPT_LINES = 200


class View(ABC):
    """Told about events as they happen, and of the run many times a second."""

    console: Console

    @abstractmethod
    def shown(self) -> AbstractContextManager[object]:
        """Hold the terminal; afterwards it is as it was."""

    @abstractmethod
    def show(self, resource: Resource, records: Records, notes: Sequence[Note] = ()) -> None:
        """Show how far the running stages are, and what needs attention."""

    def say(self, text: str) -> None:
        self.console.print(printable(text), soft_wrap=True)

    def started(self, step: Step, attempt: int) -> None:
        self.say(f"{_clock()} {step}: started" + (f", attempt {attempt}" if attempt > 1 else ""))

    def ended(self, step: Step, record: Record) -> None:
        if record.newest[-1].outcome is Outcome.SUCCEEDED:
            text = f"done in {duration(record.newest[-1].seconds)}: {headline(step, record)}"
        else:
            text = f"{record.newest[-1].outcome.value}: {record.newest[-1].message}"
        self.say(f"{_clock()} {step}: {text}")

    def warn(self, message: str) -> None:
        print(printable(message), file=sys.stderr)

    def finish(self, records: Records, results: Results | None, closing: Sequence[str]) -> None:
        """The table of the iterations, answers before and after where they can be read, and where the rest is."""
        self.console.print(iterations(records, self.console.width))
        best = best_iteration(records)
        try:
            kept = results.samples(best) if results and best is not None else []
        except DamagedError as error:
            self.warn(f"warning: {error}")
            kept = []
        if kept:
            self.console.print(samples(kept))
        for line in closing:
            self.say(line)


class PlainView(View):
    """One line per event, and progress at most every 30 s unless a quarter more is done."""

    def __init__(self, stream: TextIO) -> None:
        self.console = Console(file=stream, width=PLAIN_COLUMNS, force_terminal=False)
        self._said: dict[Step, tuple[float, float]] = {}
        self._noted: list[str] = []
        self._status: object = None

    def shown(self) -> AbstractContextManager[object]:
        return nullcontext()

    def started(self, step: Step, attempt: int) -> None:
        self._said[step] = (time.monotonic(), 0.0)
        super().started(step, attempt)

    def show(self, resource: Resource, records: Records, notes: Sequence[Note] = ()) -> None:
        if notes or resource.get("status") is not self._status:
            self._status = resource.get("status")
            self._note([*notes, *([] if is_retrying(resource) else attention(resource))])
        for step in running_steps(records):
            progress = records[step].progress
            if progress is None:
                continue
            now = time.monotonic()
            when, share = self._said.setdefault(step, (now, 0.0))
            done = share_done(progress)
            if done == 1 or (now < when + LINE_SECONDS and done < share + LINE_SHARE):
                continue
            self._said[step] = (now, done)
            self.say(f"{_clock()} {step}: {progress['done']}/{progress['total']} {pace(progress)}")

    def _note(self, notes: Sequence[Note]) -> None:
        """Say what is new; a retry is left out, since the end of the attempt was just told."""
        texts = [note.text for note in notes]
        for text in texts:
            if text not in self._noted:
                self.say(f"{_clock()} {text}")
        self._noted = texts


class LiveView(View):
    """The board, drawn again in place; events scroll above it."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        # Drawn from the executor's own loop: a second thread would break the signals' and the fork's assumptions.
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._drawn = 0.0
        self._size = self.console.size
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._speeds = Speeds()

    def shown(self) -> AbstractContextManager[object]:
        return self._live

    def say(self, text: str) -> None:
        self._lines.append(text)
        super().say(text)

    def started(self, step: Step, attempt: int) -> None:
        self._speeds.forget(step)
        super().started(step, attempt)

    def show(self, resource: Resource, records: Records, notes: Sequence[Note] = ()) -> None:
        now = time.monotonic()
        if now < self._drawn + REFRESH_SECONDS:
            return
        self._drawn = now
        paces = {
            step: f"{progress['done']}/{progress['total']} {pace(progress, self._speeds.of(step, progress, now))}"
            for step in records
            if (progress := records[step].progress)
        }
        scene = Scene(resource=resource, records=records, now=utc_now(), paces=paces, notes=notes)
        self.draw(board(scene, *self.console.size))

    def draw(self, frame: RenderableType) -> None:
        """Draw in place. A terminal that was resized has wrapped the old frame in its own way: it is wiped."""
        if self.console.size != self._size:
            self._size = self.console.size
            self.console.control(Control.clear(), Control.home())
            room = max(self.console.height - 20, 0)
            for line in list(self._lines)[len(self._lines) - min(room, len(self._lines)) :]:
                super().say(line)
        self._live.update(frame, refresh=True)


class Speeds:
    """Units per second of the running stages, between their first and newest progress."""

    def __init__(self) -> None:
        self._seen: dict[Step, tuple[tuple[float, int], tuple[float, int]]] = {}

    def forget(self, step: Step) -> None:
        self._seen.pop(step, None)

    def of(self, step: Step, progress: Mapping[str, Any], now: float) -> float | None:
        here = (now, progress["done"])
        first, newest = self._seen.setdefault(step, (here, here))
        if here[1] < newest[1]:  # another attempt
            first = newest = here
        elif here[1] > newest[1]:
            newest = here
        self._seen[step] = (first, newest)
        (start, before), (end, after) = first, newest
        return (after - before) / (end - start) if end > start else None


def pace(progress: Mapping[str, Any], speed: float | None = None) -> str:
    """Such as: steps, 2.1/s, 40s left, lossOverEta2 0.03."""
    parts = [str(progress["unit"])]
    if speed is not None:
        parts.append(f"{speed:.3g}/s")
    if progress.get("secondsLeft") is not None:
        parts.append(f"{duration(progress['secondsLeft'])} left")
    figures = progress.get("figures") or {}
    parts += [f"{name} {value}" for name, value in figures.items()]
    return ", ".join(parts)


def chosen_view(*, plain: bool) -> View:
    """The board where a terminal can show one."""
    console = Console()
    if plain or not sys.stdout.isatty() or console.is_dumb_terminal:
        return PlainView(sys.stdout)
    return LiveView(console)


def _clock() -> str:
    return time.strftime("%H:%M:%S")
