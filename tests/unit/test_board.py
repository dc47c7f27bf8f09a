"""The live board: whole at every width, honest about states, and the same for `sppo run` and `sppo watch`."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console
from simulated_operator import FAILS, HANGS, USER_FAULT, SimulatedOperator, held_at
from sppo_operator.commands.board import Scene, board
from sppo_operator.commands.overview import Level, Note, exit_status, shown_records, step_that_matters
from sppo_operator.commands.view import LiveView, Speeds
from sppo_operator.commands.watch import runs_table
from sppo_operator.decide import Attempts, Outcome, Stage, Step
from sppo_operator.facts import Attempt, Record

MARKUP = "cannot mmap [/data/model] of [bold]x[/bold] :smile:"
TRAIN = Step(1, Stage.TRAIN)
PROGRESS = {"done": 30, "total": 40, "unit": "steps", "secondsLeft": 75, "figures": {"lossOverEta2": "0.03"}}


def screen(resource: Any, columns: int, rows: int = 50, **scene: Any) -> str:
    out = io.StringIO()
    now = datetime(2026, 1, 31, 12, 1, tzinfo=UTC)
    made = Scene(resource=resource, **({"records": shown_records(resource), "now": now} | scene))
    Console(file=out, width=columns, height=rows, force_terminal=False).print(board(made, columns, rows))
    return out.getvalue()


def training() -> dict[str, Any]:
    """A run whose training is under way, with progress."""
    operator = held_at("train")
    resource: dict[str, Any] = operator.run
    stage = next(item for item in resource["status"]["iterations"][1]["stages"] if item["stage"] == "train")
    stage["progress"] = PROGRESS
    return resource


def test_a_run_at_work() -> None:
    text = screen(training(), 120, paces={TRAIN: "30/40 steps, 2/s"})
    head, titles, *rows = text.splitlines()[1:]
    assert head.rstrip() == "lab/demo  Training  iteration 1/1  win rate 0.50 [0.40, 0.60]  60s"
    assert titles.split() == ["stage", "progress", "time", "figures"]
    assert [row[:14].strip().split(maxsplit=1) for row in rows] == [
        ["✓", "prepare"],
        ["✓", "evaluate 0"],
        ["✓", "generate 1"],
        ["✓", "score 1"],
        ["▶", "train 1"],
    ]
    assert rows[-1].rstrip().endswith("30/40 steps, 2/s")


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_only_the_figures_lack_room(columns: int) -> None:
    text = screen(training(), columns, paces={TRAIN: "30/40 steps, 2/s, 75s left, lossOverEta2 0.03 " * 4})
    assert max(map(len, text.splitlines())) <= columns
    rows = text.splitlines()[3:]
    assert len(rows) == 5
    assert [row.split()[1] for row in rows] == ["prepare", "evaluate", "generate", "score", "train"]
    assert "47s" in rows[-1]
    assert "30/40" in rows[-1]
    assert ("75%" in rows[-1]) == (columns < 56)


def test_a_low_terminal_shows_the_newest_iteration() -> None:
    operator = SimulatedOperator(iterations=3)
    operator.cluster.script["train 3"] = [HANGS]
    operator.steps(lambda: operator.at_work("train") and "train 3" in operator.status["summary"]["stage"])
    assert "generate 1" in screen(operator.run, 100, rows=40)
    low = screen(operator.run, 100, rows=10)
    assert "evaluate 2" not in low
    assert "train 3" in low
    assert len(low.splitlines()) <= 10


def test_what_needs_attention_stands_above_the_stages() -> None:
    operator = SimulatedOperator(iterations=1, retries={"limit": 1})
    operator.cluster.script["train 1"] = [FAILS] * 2
    operator.steps(lambda: "tried again" in operator.condition("Progressing")["message"])
    text = screen(operator.run, 100)
    assert "… train 1 is tried again 10 s after attempt 1 ended: ended with exit code 1" in text
    assert "↻  train 1     retry waits" in text
    suspended = held_at("train")
    suspended.edit(spec={"suspend": True})
    suspended.steps(lambda: suspended.phase == "Suspended")
    assert "! Set spec.suspend to false, and the run goes on." in screen(suspended.run, 100)


def test_a_run_that_waits_in_a_queue() -> None:
    operator = SimulatedOperator(iterations=1, queue={"name": "gpus"})
    operator.cluster.admitting = False
    operator.steps(lambda: operator.phase == "Queued")
    text = screen(operator.run, 100)
    assert "… prepare waits: " in text
    assert "…  prepare  queued" in text


def test_the_command_says_that_the_server_is_away() -> None:
    text = screen(training(), 80, notes=[Note(Level.WAIT, "no answer from the API server; trying again")])
    assert (
        text.splitlines()[2] == "… no answer from the API server; trying again".ljust(80)[: len(text.splitlines()[2])]
    )


def test_a_run_that_nobody_has_looked_at_is_new() -> None:
    assert screen(SimulatedOperator().run, 80).split() == ["lab/demo", "New", "stage", "progress", "time", "figures"]


def test_no_text_is_markup() -> None:
    failed = Record().started("2026-01-31T12:00:00Z")
    failed = failed.ended(Outcome.FAILED, "2026-01-31T12:00:05Z", message=f"{MARKUP}\x1b[2J")
    bare = {"metadata": {"name": "demo"}, "status": {}}
    assert f"Application: {MARKUP}�[2J" in screen(bare, 200, records={TRAIN: failed})
    running = replace(Record().started("2026-01-31T12:00:00Z"), progress=PROGRESS)
    assert MARKUP in screen(bare, 200, records={TRAIN: running}, paces={TRAIN: MARKUP})


def test_speed_is_measured_between_the_first_and_the_newest_progress() -> None:
    speeds = Speeds()
    seen = [speeds.of(TRAIN, {"done": done}, now) for now, done in [(0, 10), (5, 10), (10, 30), (60, 30), (70, 5)]]
    assert seen == [None, None, 2.0, 2.0, None]


def test_a_resized_terminal_is_wiped_and_shows_the_newest_lines_again() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, height=24, force_terminal=True)
    view = LiveView(console)
    with view.shown():
        view.say("first line")
        console.size = (60, 24)  # type: ignore[assignment] # as a terminal that was resized
        before = len(out.getvalue())
        view.draw("frame")
    after = out.getvalue()[before:]
    assert after.index("\x1b[2J") < after.index("first line") < after.index("frame")
    assert "\x1b[?25h" in after


@pytest.mark.parametrize(
    ("behaviour", "code"), [([USER_FAULT], 65), ([FAILS, FAILS], 1)], ids=["user's fault", "retries exhausted"]
)
def test_a_failed_run_has_the_stages_exit_status(behaviour: list[Any], code: int) -> None:
    operator = SimulatedOperator(iterations=1, retries={"limit": 1})
    operator.cluster.script["score 1"] = behaviour
    operator.settle()
    assert exit_status(operator.run) == code
    assert step_that_matters(operator.run) == Step(1, Stage.SCORE)
    assert step_that_matters(operator.run, stage=Stage.EVALUATE) == Step(0, Stage.EVALUATE)


def test_a_run_that_was_refused_has_the_status_of_a_bad_configuration() -> None:
    refused = {"type": "Succeeded", "status": "False", "reason": "Refused", "message": "no"}
    assert exit_status({"metadata": {"name": "demo"}, "status": {"conditions": [refused]}}) == 78


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_the_table_of_all_runs_says_below_what_needs_attention(columns: int) -> None:
    failed = SimulatedOperator(iterations=1)
    failed.cluster.script["score 1"] = [USER_FAULT]
    failed.settle()
    queued = SimulatedOperator(iterations=1, queue={"name": "gpus"})
    queued.cluster.admitting = False
    queued.steps(lambda: queued.phase == "Queued")
    out = io.StringIO()
    table = runs_table([failed.run, queued.run, held_at("train").run], [], columns, everywhere=columns > 100)
    Console(file=out, width=columns, force_terminal=False).print(table)
    head, *rows = out.getvalue().splitlines()
    assert ("age" in head.split(), "namespace" in head.split()) == (columns > 96, columns > 100)
    assert [row.split().count("1/1") for row in rows[:3]] == [1, 0, 1]
    assert "…" not in "".join(rows[:3])
    assert rows[4].rstrip() == "! demo: score 1: prompts.source lacks a column: name it"
    assert rows[5].startswith("… demo: prepare waits: ")
    assert max(map(len, rows)) <= columns


def test_an_empty_namespace_says_how_to_begin() -> None:
    out = io.StringIO()
    Console(file=out, width=80, force_terminal=False).print(runs_table([], [], 80, everywhere=False))
    assert out.getvalue() == "No runs here yet: kubectl apply -f FILE makes one.\n"


def test_the_time_of_an_attempt_that_waited_does_not_fall_at_its_end() -> None:
    waited = Attempt(number=1, outcome=Outcome.RUNNING, started="2026-01-31T11:00:00Z", active_seconds=0, active_since="2026-01-31T12:00:00Z")  # fmt: skip
    running = Record(attempts=Attempts(made=1, last=Outcome.RUNNING), newest=(waited,), first_started=waited.started)
    ended = running.ended(Outcome.SUCCEEDED, "2026-01-31T12:01:00Z")
    for record in (running, ended):
        row = next(row for row in screen(training(), 80, records={TRAIN: record}).splitlines() if "train 1" in row)
        assert "60s" in row
