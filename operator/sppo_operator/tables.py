"""What `sppo run` shows, as rich renderables made from the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import RenderableType
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
TIMED = (Stage.GENERATE, Stage.SCORE, Stage.TRAIN, Stage.EVALUATE)


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
        table.add_row(mark, str(step), _bar(record), _time(record), paces.get(step) or _outcome(step, record))
    return table


def iterations(records: Records) -> Table:
    """One row per iteration: what the policy became, and what it cost."""
    table = Table(title="Held-out results, and seconds per stage", title_justify="left", title_style="bold")
    for title in ("iteration", "win rate vs base", "pass rate", "tokens", "KL", "loss/η²", *TIMED):
        table.add_column(title, justify="right")
    for number in sorted({step.iteration for step in records}):
        evaluated = records.get(Step(number, Stage.EVALUATE), Record())
        trained = records.get(Step(number, Stage.TRAIN), Record())
        table.add_row(
            "base" if number == 0 else str(number),
            str(win_rate(records, number) or ""),
            figure(evaluated.number("passRate")),
            figure(evaluated.number("meanTokens")),
            figure(evaluated.number("klPerResponse")),
            figure(trained.number("lossOverEta2")),
            *(seconds(records.get(Step(number, stage))) for stage in TIMED),
        )
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
    """What a model wrote, without the characters that would command the terminal."""
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
