"""The live board of a run, the same for `sppo run` and `sppo watch`: a head line, what needs attention, the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sppo_operator.commands.overview import Level, Note, Resource, attention, shown_status, states_of
from sppo_operator.commands.tables import headline, printable, share_done
from sppo_operator.decide import Outcome, Step
from sppo_operator.facts import Record, Records, best_iteration, in_order, seconds_between, timestamp
from sppo_operator.summary import duration

MARKS = {
    "Running": ("▶", "cyan"),
    "Queued": ("…", "yellow"),
    "Suspended": ("‖", "yellow"),
    "Retrying": ("↻", "yellow"),
    "Succeeded": ("✓", "green"),
    "Failed": ("✗", "red"),
    "GivenUp": ("✗", "yellow"),
    "Pending": ("·", "dim"),
}
WORDS = {"Queued": "queued", "Suspended": "suspended", "Retrying": "retry waits"}
"""What stands in the place of the progress of a stage that makes none."""
PHASES = {
    "Succeeded": "bold green",
    "Failed": "bold red",
    **dict.fromkeys(("Queued", "Suspended", "Waiting", "Stopped"), "bold yellow"),
}
NOTES = {Level.HELP: ("!", "bold red"), Level.WAIT: ("…", "yellow")}
LIVE_ITERATIONS = 3
FIXED_ROWS = 5
"""Of the board beside the stages' rows."""
ROWS_PER_ITERATION = 4
WIDE_COLUMNS, BAR_COLUMNS = 110, 56
"""Below the latter there is room for a percentage only."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What the board shows."""

    resource: Resource
    records: Records
    """Newer than the resource where stages run on this machine."""
    now: datetime
    paces: Mapping[Step, str] = field(default_factory=dict)
    notes: Sequence[Note] = ()
    """What the command itself has to say, such as that the API server does not answer."""


def board(scene: Scene, columns: int, rows: int = 50) -> Group:
    """At most about as tall as the terminal: then the newest iterations only."""
    notes = [*scene.notes, *attention(scene.resource)]
    fitting = (rows - FIXED_ROWS - 2 * len(notes)) // ROWS_PER_ITERATION
    shown = max(1, min(LIVE_ITERATIONS, fitting))
    return Group("", head(scene), *map(note_line, notes), stages(scene, columns, shown))


def head(scene: Scene) -> Text:
    """Name, phase, iteration, win rate, time since the start."""
    status, metadata = shown_status(scene.resource), scene.resource["metadata"]
    phase = status.get("phase", "New")
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{metadata.get('namespace', 'default')}/{metadata['name']}", "bold")
    text.append(f"  {phase}", PHASES.get(phase, "bold cyan"))
    summary = status.get("summary", {})
    if "iteration" in summary:
        text.append(f"  iteration {summary['iteration']}")
    if "winRate" in summary:
        text.append(f"  win rate {summary['winRate']}")
    best = best_iteration(scene.records)
    if best is not None:
        text.append(f"  best {best}")
    if start := status.get("startTime"):
        text.append(f"  {duration(_since(start, scene.now, status.get('finishTime')))}", "dim")
    return text


def stages(scene: Scene, columns: int, iterations: int = LIVE_ITERATIONS) -> Table:
    """The steps of the newest iterations that were started: state, progress or figures, time."""
    states, records = states_of(scene.resource), scene.records
    newest = max((step.iteration for step in records), default=0)
    shown = [step for step in in_order(records) if step.iteration > newest - iterations]
    bar = 24 if columns >= WIDE_COLUMNS else 12 if columns >= BAR_COLUMNS else 4
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "stage", "progress" if bar > 4 else "", "time"):
        table.add_column(title, no_wrap=True, justify="right" if title == "time" else "left")
    table.add_column("figures")  # the only one that may shrink, and its cells are cut rather than wrapped
    for step in shown:
        record = records[step]
        state = _state(record, states.get(step, ""))
        figures = printable((record.progress and scene.paces.get(step)) or _outcome(step, record))
        figures.no_wrap, figures.overflow = True, "ellipsis"
        table.add_row(Text(*MARKS[state]), str(step), _bar(record, state, bar), _time(record, scene.now), figures)
    return table


def _state(record: Record, shown: str) -> str:
    match record.attempts.last:
        case Outcome.RUNNING:
            return shown if shown in ("Queued", "Suspended") else "Running"
        case Outcome.SUCCEEDED:
            return "Succeeded"
        case None:
            return "Pending"
        case Outcome.FAILED | Outcome.DISRUPTED if shown == "Pending":
            return "Retrying"
    return shown or "Failed"


def _bar(record: Record, state: str, width: int) -> RenderableType:
    if record.progress is None or state in WORDS:
        return Text(WORDS.get(state, ""), "yellow")
    if width < 12:
        return f"{share_done(record.progress):.0%}"
    return ProgressBar(total=max(record.progress["total"], 1), completed=record.progress["done"], width=width)


def _time(record: Record, now: datetime) -> str:
    return duration(record.seconds_at(now)) if record.newest else ""


def _since(start: str, now: datetime, end: str | None = None) -> float:
    """Seconds; clocks of two machines differ, and no time is negative."""
    return max(seconds_between(start, end or timestamp(now)), 0.0)


def utc_now() -> datetime:
    return datetime.now(UTC)


def note_line(note: Note) -> Table:
    """A mark and the text, which is wrapped beside it."""
    mark, style = NOTES[note.level]
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_row(Text(mark, style), printable(note.text))
    return table


def _outcome(step: Step, record: Record) -> str:
    match record.attempts.last:
        case Outcome.SUCCEEDED:
            return headline(step, record)
        case None | Outcome.RUNNING:
            return ""
        case outcome:
            why = record.attempts.message
            return f"{outcome.value}: {why}" if why else outcome.value
