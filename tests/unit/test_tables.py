"""What the terminal shows: every figure whole at every width, and text as text."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType
from sppo_operator.commands.tables import iterations, samples
from sppo_operator.commands.view import PlainView
from sppo_operator.decide import Outcome, Stage, Step
from sppo_operator.facts import Record

NOW, LATER = "2026-01-31T12:00:00Z", "2026-01-31T22:17:36Z"  # 37056 s
MARKUP = "cannot mmap [/data/model] of [bold]x[/bold] :smile:"


def shown(table: RenderableType, columns: int) -> str:
    console = Console(file=io.StringIO(), width=columns, force_terminal=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def done(**metrics: float) -> Record:
    return Record().started(NOW).ended(Outcome.SUCCEEDED, LATER).with_result(metrics, "d" * 64)


RATE = {"winRateBase": 0.731, "winRateBaseLow": 0.688, "winRateBaseHigh": 0.774}
RECORDS = {
    Step(1, Stage.GENERATE): done(),
    Step(1, Stage.SCORE): done(),
    Step(1, Stage.TRAIN): done(lossOverEta2=1.23e-05),
    Step(1, Stage.EVALUATE): done(**RATE, passRate=1.25e-05, meanTokens=1234.5, klPerResponse=1.27e-05),
}


@pytest.mark.parametrize(("columns", "titles"), [(80, 2), (115, 2), (116, 1), (160, 1)])
def test_every_figure_is_whole(columns: int, titles: int) -> None:
    text = shown(iterations(RECORDS, columns), columns)
    for figure in ("0.73 [0.69, 0.77]", "1.25e-05", "1.23e+03", "1.27e-05", "1.23e-05", "generate", "loss/η²"):
        assert figure in text
    assert "…" not in text
    assert text.count("37056") == 4
    assert max(map(len, text.splitlines())) <= columns
    assert sum("econds per stage" in line for line in text.splitlines()) == 1
    assert sum(line.startswith(("Held-out", "Seconds")) for line in text.splitlines()) == titles


RESULTS_AT = [
    (80, "iteration,win rate vs base,pass rate,tokens,KL,loss/η²", "iteration,generate,score,train,evaluate"),
    (60, "iteration,win rate vs base,pass rate,tokens", "iteration,generate,score,train,evaluate"),
    (40, "iteration,win rate vs base", "iteration,generate,score,train"),
    (33, "iteration,win rate vs base", "iteration,generate,score"),
    (32, "iteration,win rate", "iteration,generate,score"),
    (24, "iteration,win rate", "iteration,generate"),
]


@pytest.mark.parametrize(("columns", "results", "times"), RESULTS_AT, ids=[str(row[0]) for row in RESULTS_AT])
def test_on_a_narrow_terminal_whole_columns_are_left_out(columns: int, results: str, times: str) -> None:
    text = shown(iterations(RECORDS, columns), columns)
    heads = [line for line in text.splitlines() if "iteration" in line]
    assert [",".join(part.strip() for part in head.strip("┃ ").split("┃")) for head in heads] == [results, times]
    assert ("0.73 [0.69, 0.77]" if "vs base" in results else " 0.73 ") in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= columns


def test_of_a_long_answer_the_beginning_is_shown() -> None:
    answer = {"prompt": "p", "before": "b", "after": "a" * 400_000}
    text = shown(samples([answer]), 240)
    assert text.count("a") < 5000
    assert "395904" in text


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ([0.5, 1, 0.25, 0.75, 0], ["1.00", "0.50", "0.00"]),
        ([0.25, 0.75], ["0.75", "0.25"]),
        ([0.5], ["0.50"]),
    ],
    ids=["the ends and the middle", "two", "one"],
)
def test_nobody_chooses_which_answers_are_shown(rates: list[float], chosen: list[str]) -> None:
    answers = [{"prompt": f"p{rate:.2f}", "before": "b", "after": "a", "winRate": rate} for rate in rates]
    lines = [line for line in shown(samples(answers), 100).splitlines() if " b " in line]
    assert [line.split()[1] for line in lines] == [f"p{rate}" for rate in chosen]
    assert [line.split()[-2] for line in lines] == chosen


def test_no_text_is_markup() -> None:
    answer = {"prompt": MARKUP, "before": MARKUP, "after": MARKUP}
    assert shown(samples([answer]), 240).count(MARKUP) == 3


def test_no_event_is_markup(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    view = PlainView(stream)
    view.say(MARKUP)
    view.warn(f"{MARKUP}\x1b[2J")
    assert stream.getvalue() == f"{MARKUP}\n"
    assert capsys.readouterr().err == f"{MARKUP}�[2J\n"
