"""The results of a run and answers before and after, as rich renderables made from the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sppo_operator.decide import Stage, Step
from sppo_operator.facts import Record, Records, win_rate
from sppo_operator.results import Sample, by_win_rate
from sppo_operator.summary import figure, shortened

HEADLINES = {
    Stage.PREPARE: {"rows": "prompts", "heldOut": "held out", "duplicates": "duplicates"},
    Stage.GENERATE: {"responses": "responses", "meanTokens": "tokens each", "cutShare": "cut"},
    Stage.SCORE: {"passRate": "pass rate", "tiedPrompts": "ties"},
    Stage.TRAIN: {"lossOverEta2": "loss/η²", "logRatioBest": "log-ratio best", "logRatioWorst": "worst"},
    Stage.EVALUATE: {"passRate": "pass rate", "meanTokens": "tokens each", "klPerResponse": "KL"},
}
"""The metrics worth a line, by stage, with the words for them."""
RESULTS = ("win rate vs base", "pass rate", "tokens", "KL", "loss/η²")
"""The last are left out first where a terminal is narrow; so are those below."""
TIMED = (Stage.GENERATE, Stage.SCORE, Stage.TRAIN, Stage.EVALUATE)
Row = tuple[str, ...]
WIDE_COLUMNS = 116
"""From this width on results and times fit into one table with every figure whole."""


def headline(step: Step, record: Record) -> str:
    """The few figures of a finished step that people wait for."""
    figures = [
        f"{words} {figure(value)}"
        for metric, words in HEADLINES[step.stage].items()
        if (value := record.number(metric)) is not None
    ]
    rate = win_rate({step: record}, step.iteration)
    return ", ".join([f"win rate {rate}", *figures] if rate else figures)


def iterations(records: Records, columns: int) -> Group:
    """One row per iteration: what the policy became, and what it cost; on a narrow terminal in two tables.

    Whatever is shown is whole: columns that do not fit are left out.
    """
    numbers = sorted({step.iteration for step in records})
    names = ["base" if number == 0 else str(number) for number in numbers]
    results = [_results(records, number) for number in numbers]
    times = [tuple(seconds(records.get(Step(number, stage))) for stage in TIMED) for number in numbers]
    if columns >= WIDE_COLUMNS:
        titles = ("iteration", *RESULTS, *TIMED)
        rows = [(name, *figures, *spent) for name, figures, spent in zip(names, results, times, strict=True)]
        return Group(_figures("Held-out results, and seconds per stage", titles, rows))
    shown = _fitting(("iteration", *RESULTS), [(n, *f) for n, f in zip(names, results, strict=True)], columns)
    if len(shown[0]) < 2:  # not even the win rate with its interval
        rates = [win_rate(records, number) for number in numbers]
        means = ["" if rate is None else f"{rate.value:.2f}" for rate in rates]
        shown = ("iteration", "win rate"), list(zip(names, means, strict=True))
    spent = _fitting(("iteration", *TIMED), [(n, *t) for n, t in zip(names, times, strict=True)], columns)
    return Group(_figures("Held-out results", *shown), _figures("Seconds per stage", *spent))


def _fitting(titles: Row, rows: Sequence[Row], columns: int) -> tuple[Row, Sequence[Row]]:
    """The first columns, as many as are whole in a terminal of so many."""
    widths = [max(map(len, column)) + len("│  ") for column in zip(titles, *rows, strict=True)]
    fitting = sum(total < columns for total in accumulate(widths))
    return titles[:fitting], [row[:fitting] for row in rows]


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


def samples(kept: Sequence[Sample]) -> Table:
    """Answers before and after to three of the prompts: those that were won most, in the middle and least."""
    ranked = by_win_rate(kept)
    title = "Held-out answers: the best, a typical and the worst by win rate"
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", show_lines=True)
    for name in ("prompt", "before", "after"):
        table.add_column(name, ratio=1)
    table.add_column("win rate", justify="right")
    for index in sorted({0, len(ranked) // 2, len(ranked) - 1}):
        row, rate = ranked[index], ranked[index].get("winRate")
        texts = (printable(shortened(row[key])) for key in ("prompt", "before", "after"))
        table.add_row(*texts, "" if rate is None else f"{rate:.2f}")
    return table


def printable(text: str) -> Text:
    """What a model or a library wrote: no markup, and no characters that would command the terminal."""
    return Text("".join(character if character.isprintable() or character == "\n" else "�" for character in text))


def share_done(progress: Mapping[str, Any]) -> float:
    return float(progress["done"] / progress["total"]) if progress["total"] else 0.0
