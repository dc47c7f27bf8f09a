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
