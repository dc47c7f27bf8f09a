"""What `sppo run` shows, as rich renderables made from the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sppo_operator.decide import Outcome, Stage, Step
from sppo_operator.facts import Record, Records, in_order, win_rate
from sppo_operator.summary import duration

MARKS = {Outcome.RUNNING: "▶", Outcome.SUCCEEDED: "✓", Outcome.USER_FAULT: "✗", Outcome.FAILED: "✗"}
HEADLINES = {
    Stage.PREPARE: {"rows": "prompts", "heldOut": "held out", "duplicates": "duplicates"},
    Stage.GENERATE: {"responses": "responses", "meanTokens": "tokens each", "cutShare": "cut"},
    Stage.SCORE: {"passRate": "pass rate", "tiedPrompts": "ties"},
    Stage.TRAIN: {"lossOverEta2": "loss/η²", "logRatioBest": "log-ratio best", "logRatioWorst": "worst"},
    Stage.EVALUATE: {"passRate": "pass rate", "meanTokens": "tokens each", "klPerResponse": "KL"},
}
"""The metrics worth a line, by stage, with the words for them."""
LIVE_ITERATIONS = 3
RESULTS = ("win rate vs base", "pass rate", "tokens", "KL", "loss/η²")
TIMED = (Stage.GENERATE, Stage.SCORE, Stage.TRAIN, Stage.EVALUATE)
WIDE_COLUMNS = 116
"""From this width on results and times fit into one table with every figure whole."""


def headline(step: Step, record: Record) -> str:
    """The few figures of a finished step that people wait for."""
    figures = [
        f"{words} {figure(record.number(metric))}"
        for metric, words in HEADLINES[step.stage].items()
        if metric in record.metrics
    ]
    rate = win_rate({step: record}, step.iteration)
    return ", ".join([f"win rate {rate}", *figures] if rate else figures)


def stages(records: Records, paces: Mapping[Step, str]) -> Table:
    """The steps of the newest iterations that were started: state, progress or figures, time."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "stage", "progress", "time", "figures"):
        table.add_column(title, justify="right" if title == "time" else "left", no_wrap=title != "figures")
    newest = max((step.iteration for step in records), default=0)
    for step in in_order(records):
        record = records[step]
        if step.iteration <= newest - LIVE_ITERATIONS:
            continue
        mark = MARKS.get(record.attempts.last or Outcome.VANISHED, "·")
        figures = printable(paces.get(step) or _outcome(step, record))
        table.add_row(mark, str(step), _bar(record), _time(record), figures)
    return table


def iterations(records: Records, columns: int) -> Group:
    """One row per iteration: what the policy became, and what it cost; on a narrow terminal in two tables."""
    numbers = sorted({step.iteration for step in records})
    names = ["base" if number == 0 else str(number) for number in numbers]
    results = [_results(records, number) for number in numbers]
    times = [tuple(seconds(records.get(Step(number, stage))) for stage in TIMED) for number in numbers]
    if columns >= WIDE_COLUMNS:
        titles = ("iteration", *RESULTS, *TIMED)
        rows = [(name, *figures, *spent) for name, figures, spent in zip(names, results, times, strict=True)]
        return Group(_figures("Held-out results, and seconds per stage", titles, rows))
    return Group(
        _figures("Held-out results", ("iteration", *RESULTS), [(n, *f) for n, f in zip(names, results, strict=True)]),
        _figures("Seconds per stage", ("iteration", *TIMED), [(n, *t) for n, t in zip(names, times, strict=True)]),
    )


def _results(records: Records, number: int) -> tuple[str, ...]:
    evaluated = records.get(Step(number, Stage.EVALUATE), Record())
    trained = records.get(Step(number, Stage.TRAIN), Record())
    return (
        str(win_rate(records, number) or ""),
        figure(evaluated.number("passRate")),
        figure(evaluated.number("meanTokens")),
        figure(evaluated.number("klPerResponse")),
        figure(trained.number("lossOverEta2")),
    )


def _figures(title: str, titles: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in titles:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def seconds(record: Record | None) -> str:
    return f"{record.seconds:.0f}" if record is not None and record.finished else ""


def samples(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Prompts with the answer before and after."""
    table = Table(
        title="Held-out answers", title_justify="left", title_style="bold", header_style="bold", show_lines=True
    )
    for title in ("prompt", "before", "after"):
        table.add_column(title, ratio=1)
    for row in rows:
        table.add_row(*(printable(row[key]) for key in ("prompt", "before", "after")))
    return table


def printable(text: str) -> Text:
    """What a model or a library wrote: no markup, and no characters that would command the terminal."""
    return Text("".join(character if character.isprintable() or character == "\n" else "�" for character in text))


def figure(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if value == int(value) and abs(value) >= 1 else f"{value:.3g}"


def share_done(progress: Mapping[str, Any]) -> float:
    return float(progress["done"] / progress["total"]) if progress["total"] else 0.0


def _bar(record: Record) -> RenderableType:
    if record.progress is None:
        return ""
    return ProgressBar(total=max(record.progress["total"], 1), completed=record.progress["done"], width=24)


def _time(record: Record) -> str:
    return duration(record.seconds) if record.finished else ""


def _outcome(step: Step, record: Record) -> str:
    match record.attempts.last:
        case Outcome.SUCCEEDED:
            return headline(step, record)
        case None | Outcome.RUNNING:
            return ""
        case outcome:
            return f"{outcome.value}: {record.attempts.message}"
