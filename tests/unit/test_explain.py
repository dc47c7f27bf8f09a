"""What `sppo describe` says: who is at fault, and a command that helps, for every way in which a run can be."""

from __future__ import annotations

import asyncio
import io
import json
import math
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from simulated_cluster import Behaviour
from simulated_operator import FAILS, USER_FAULT, SimulatedOperator, held_at
from sppo_operator.commands.describe import describe
from sppo_operator.commands.explain import explanation
from sppo_operator.commands.overview import Resource
from sppo_operator.commands.source import Log, Object, Source, Wanted
from sppo_operator.commands.stage_logs import readable
from sppo_operator.commands.watch import differences
from sppo_operator.decide import Outcome, Stage, Step
from sppo_operator.errors import RightsError
from sppo_operator.facts import Record
from sppo_operator.results import Material

NOW = datetime(2026, 1, 31, 12, 10, tzinfo=UTC)
STEP = Step(1, Stage.TRAIN)


class Shown(Source):
    """A run with one log and no rights to read Events."""

    def __init__(self, resource: Resource) -> None:
        self.shown = resource

    async def resource(self) -> Resource:
        return self.shown

    async def log(self, wanted: Wanted) -> Log:
        return Lines(f"pod of {wanted.step}")

    async def events(self) -> list[Object]:
        raise RightsError("events are forbidden: ask for the right")

    async def material(self, resource: Resource, say: Callable[[str], object]) -> Material:
        raise NotImplementedError

    def report_path(self, resource: Resource) -> Path:
        raise NotImplementedError

    def stopped(self, resource: Resource) -> str:
        return ""

    def command(self, verb: str) -> str:
        return f"sppo {verb} demo"

    def kubectl(self, verb: str) -> str:
        return f"kubectl {verb} sppo demo"

    def go_on(self) -> str:
        return "go on"


class Lines(Log):
    def __init__(self, title: str) -> None:
        self.title = title

    async def lines(self, *, follow: bool, tail: int | None = None) -> AsyncIterator[bytes]:
        yield b"the last line"


def told(operator: SimulatedOperator) -> tuple[str, str, str, tuple[str, ...]]:
    found = explanation(Shown(operator.run), operator.run, NOW)
    return found.headline, found.reason, found.fault, found.next


def failed(*behaviour: Behaviour, **spec: Any) -> SimulatedOperator:
    operator = SimulatedOperator(iterations=1, **spec)
    operator.cluster.script["score 1"] = list(behaviour)
    operator.settle()
    return operator


def test_the_users_fault() -> None:
    headline, reason, fault, remedy = told(failed(USER_FAULT))
    assert headline == "lab/demo failed in score 1, attempt 1, exit code 65."
    assert reason == "prompts.source lacks a column: name it"
    assert fault.startswith("The run, its data or its workspace is at fault.")
    assert remedy[1] == "$ go on"


def test_retries_that_are_used_up() -> None:
    headline, reason, fault, remedy = told(failed(FAILS, FAILS, retries={"limit": 1}))
    assert headline.startswith("lab/demo failed in score 1, attempt 1")
    assert "boom" in reason
    assert fault.startswith("The stage failed 2 times, and spec.retries.limit allows no more.")
    assert remedy[1] == "$ go on"


def test_a_lack_of_memory_is_named() -> None:
    assert told(failed(Behaviour(137), retries={"limit": 0}))[2].endswith("it lacked memory.")


def test_a_deadline_is_no_fault_of_the_machine() -> None:
    operator = held_at("score", stages={"score": {"deadlineSeconds": 60}}, retries={"limit": 0})
    operator.cluster.wait(60)
    operator.settle()
    _, reason, fault, remedy = told(operator)
    assert reason == "stopped after spec.stages.score.deadlineSeconds 60: raise it or remove it"
    assert fault.endswith("allows no more. It took longer than it may.")
    assert remedy[0].startswith("Raise or remove the deadline")


def test_success() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.finish()
    headline, reason, _, closing = told(operator)
    assert headline.startswith("lab/demo succeeded: 1 iteration in ")
    assert headline.endswith(
        "the best is iteration 1 with a win rate of 0.60 [0.50, 0.70] against the base model, "
        "which is no sure gain over the base model."
    )
    assert not reason
    assert closing == ("Model of iteration 1: pvc://models/lab/demo/i1/train/model", "Report: sppo report demo")


def test_work_under_way() -> None:
    headline, *_, commands = told(held_at("train"))
    assert headline == "lab/demo is at work: train 1."
    assert commands == ("$ sppo watch demo",)


def test_a_suspended_run() -> None:
    operator = held_at("train")
    operator.edit(spec={"suspend": True})
    operator.steps(lambda: operator.phase == "Suspended")
    assert told(operator)[3] == ('$ kubectl patch sppo demo --type merge -p \'{"spec":{"suspend":false}}\'',)


def test_a_queued_run() -> None:
    operator = SimulatedOperator(iterations=1, queue={"name": "gpus"})
    operator.cluster.admitting = False
    operator.steps(lambda: operator.phase == "Queued")
    assert told(operator)[0] == "lab/demo waits in the queue."


def test_a_retry_is_waited_for() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script["train 1"] = [FAILS] * 2
    operator.steps(lambda: "tried again" in operator.condition("Progressing")["message"])
    headline, reason, *_ = told(operator)
    assert headline == "lab/demo waits before it tries again."
    assert reason.startswith("train 1 is tried again 10 s after attempt 1 ended")


def test_nobody_looks() -> None:
    headline, _, fault, commands = told(SimulatedOperator())
    assert headline == "No operator has looked at lab/demo in 10m."
    assert fault == "The operator does not run, or it serves other namespaces."
    assert commands == ("$ kubectl get pods -A -l app.kubernetes.io/name=sppo-operator",)


def described(operator: SimulatedOperator, columns: int) -> str:
    out = io.StringIO()
    asyncio.run(describe(Shown(operator.run), Console(file=out, width=columns, force_terminal=False), NOW))
    return out.getvalue()


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_a_description_fits(columns: int) -> None:
    text = described(failed(USER_FAULT), columns)
    assert max(map(len, text.splitlines())) <= columns
    for part in ("Run\n", "Conditions\n", "Attempts\n", "events are forbidden", "the last line", "sppo logs demo"):
        assert part in text
    assert "…" not in text


def test_the_log_of_a_run_that_succeeded_is_left_out() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.finish()
    assert "the last line" not in described(operator, 120)


def steps(*outcomes: str) -> Record:
    """A step with attempts that ended so; the last one runs if it says so."""
    record = Record()
    for outcome in outcomes:
        record = record.started("2026-01-31T12:00:00Z")
        if outcome != "Running":
            record = record.ended(Outcome(outcome), "2026-01-31T12:00:01Z")
    return record


@pytest.mark.parametrize(
    ("before", "after", "news"),
    [
        ([], ["Running"], "1 Running"),
        (["Running"], ["Running"], ""),
        (["Running"], ["Succeeded"], "1 Succeeded"),
        (["Running"], ["Application", "Running"], "1 Application, 2 Running"),
        ([], ["Succeeded"], "1 Running, 1 Succeeded"),
        (
            ["Application"],
            ["Application", "Disruption", "Succeeded"],
            "2 Running, 2 Disruption, 3 Running, 3 Succeeded",
        ),
        (["Application"] * 5, ["Application"] * 5, ""),
        (["Application"] * 5, ["Application"] * 6, "6 Running, 6 Application"),
    ],
)
def test_what_happened_between_two_looks(before: list[str], after: list[str], news: str) -> None:
    old = {STEP: steps(*before)} if before else {}
    told = [
        f"{number} {record.newest[-1].outcome.value}" for _, number, record in differences(old, {STEP: steps(*after)})
    ]
    assert ", ".join(told) == news


def line_of(**changed: Any) -> bytes:
    return json.dumps({"progress": {"done": 1, "total": 2, "unit": "steps", **changed}}).encode()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b'{"progress": {"done": 1, "total": 2, "unit": "steps"}}', "1/2 steps"),
        (b'{"progress": 3}', '{"progress": 3}'),
        (line_of(unit="\x1b]0;x\x07\x1b[2J"), "1/2 �]0;x��[2J"),
        (line_of(figures={"loss\x1b[2J": "\x07"}), "1/2 steps, loss�[2J �"),
        (line_of(secondsLeft="soon"), "1/2 steps"),
        (line_of(secondsLeft=math.inf), "1/2 steps"),
        (line_of(done="\x1b"), '{"progress": {"done": "\\u001b", "total": 2, "unit": "steps"}}'),
        (b"10%\r100%", "100%"),
        (b"\x1b]0;title\x07\xff", "�]0;title��"),
    ],
    ids=[
        "progress",
        "no progress",
        "commands in its unit",
        "commands in its figures",
        "time left in words",
        "time left without end",
        "progress without numbers",
        "a bar",
        "commands to the terminal",
    ],
)
def test_lines_of_a_log_are_readable(line: bytes, shown: str) -> None:
    async def lines() -> AsyncIterator[bytes]:
        yield line

    async def first() -> str:
        return await anext(readable(lines()))

    assert asyncio.run(first()) == shown
