"""The order of the stages: a table of single decisions, then whole runs under random outcomes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sppo_operator.decide import (
    Action,
    Attempts,
    Fail,
    Finish,
    GiveUp,
    Outcome,
    Plan,
    Stage,
    Start,
    Step,
    Wait,
    decide,
    inputs,
    schedule,
)

LETTERS = {
    "R": Outcome.RUNNING,
    "S": Outcome.SUCCEEDED,
    "U": Outcome.USER_FAULT,
    "F": Outcome.FAILED,
    "I": Outcome.DISRUPTED,
}


def step(name: str) -> Step:
    stage, _, iteration = name.partition(" ")
    return Step(int(iteration or 0), Stage(stage))


def attempts(letters: str) -> Attempts:
    """One letter per attempt, oldest first: FIR failed, was interrupted, and runs."""
    tried = Attempts()
    for letter in letters:
        tried = tried.started()
        if letter != "R":
            tried = tried.ended(LETTERS[letter], f"{letter} happened")
    return tried


def history(**letters: str) -> dict[Step, Attempts]:
    """history(prepare="S", generate_1="R")."""
    return {step(name.replace("_", " ")): attempts(text) for name, text in letters.items()}


def shown(action: Action) -> str:
    match action:
        case Start(at, attempt, delay):
            return f"start {at} a{attempt}" + (f" after {delay:g} s" if delay else "")
        case Wait(at):
            return f"wait {at}"
        case GiveUp(at, message):
            return f"give up {at}: {message}"
        case Fail(at, reason, message):
            return f"fail {at}, {reason}: {message}"
        case Finish():
            return "finish"


DONE_1 = {"prepare": "S", "evaluate_0": "S", "generate_1": "S", "score_1": "S", "train_1": "S", "evaluate_1": "S"}
TRAINED_1 = {name: letters for name, letters in DONE_1.items() if name != "evaluate_1"}

DECISIONS = {
    "a new run prepares": ({}, {}, ["start prepare a1"]),
    "nothing starts while prepare runs": ({}, {"prepare": "R"}, ["wait prepare"]),
    "after prepare the base is evaluated beside the first samples": (
        {},
        {"prepare": "S"},
        ["start evaluate 0 a1", "start generate 1 a1"],
    ),
    "without parallel evaluation the base comes first": (
        {"parallel": False},
        {"prepare": "S"},
        ["start evaluate 0 a1"],
    ),
    "without parallel evaluation samples wait for the base": (
        {"parallel": False},
        {"prepare": "S", "evaluate_0": "R"},
        ["wait evaluate 0"],
    ),
    "without parallel evaluation samples follow the base": (
        {"parallel": False},
        {"prepare": "S", "evaluate_0": "S"},
        ["start generate 1 a1"],
    ),
    "an evaluation waits for the running stage when parallel was switched off meanwhile": (
        {"parallel": False},
        {"prepare": "S", "generate_1": "R"},
        ["wait generate 1"],
    ),
    "scores follow samples": (
        {},
        {"prepare": "S", "evaluate_0": "R", "generate_1": "S"},
        ["wait evaluate 0", "start score 1 a1"],
    ),
    "training follows scores": (
        {},
        {"prepare": "S", "evaluate_0": "S", "generate_1": "S", "score_1": "S"},
        ["start train 1 a1"],
    ),
    "after training the next samples and the evaluation": (
        {},
        TRAINED_1,
        ["start evaluate 1 a1", "start generate 2 a1"],
    ),
    "an evaluation waits for the one before it": (
        {},
        TRAINED_1 | {"evaluate_0": "R"},
        ["wait evaluate 0", "start generate 2 a1"],
    ),
    "the last iteration ends with its evaluation": ({"iterations": 1}, TRAINED_1, ["start evaluate 1 a1"]),
    "all done": ({"iterations": 1}, DONE_1, ["finish"]),
    "a finished run with more iterations goes on": ({"iterations": 2}, DONE_1, ["start generate 2 a1"]),
    "a finished run without iterations only measures the base": (
        {"iterations": 0},
        {"prepare": "S", "evaluate_0": "S"},
        ["finish"],
    ),
    "a first failure is retried after the backoff": ({}, {"prepare": "F"}, ["start prepare a2 after 10 s"]),
    "a second failure waits twice as long": ({}, {"prepare": "FF"}, ["start prepare a3 after 20 s"]),
    "the delay is bounded": (
        {"retries": 99},
        {"prepare": "F" * 60},
        ["start prepare a61 after 600 s"],
    ),
    "the last allowed failure is still retried": ({}, {"prepare": "FFF"}, ["start prepare a4 after 40 s"]),
    "one failure more fails the run": (
        {},
        {"prepare": "FFFF"},
        [
            "fail prepare, RetriesExhausted: prepare failed 4 times, and no retry is left: F happened; mend the cause, then retry the run"
        ],
    ),
    "a higher limit continues a failed run": (
        {"retries": 4},
        {"prepare": "FFFF"},
        ["start prepare a5 after 80 s"],
    ),
    "no retries": (
        {"retries": 0},
        {"prepare": "F"},
        [
            "fail prepare, RetriesExhausted: prepare failed once, and no retry is left: F happened; mend the cause, then retry the run"
        ],
    ),
    "an interruption is not charged": ({}, {"prepare": "FFFI"}, ["start prepare a5 after 10 s"]),
    "many interruptions are not charged": ({"retries": 0}, {"prepare": "I" * 50}, ["start prepare a51 after 10 s"]),
    "a failure after interruptions is charged once": ({}, {"prepare": "IIF"}, ["start prepare a4 after 10 s"]),
    "a retry that runs is awaited": ({}, {"prepare": "FR"}, ["wait prepare"]),
    "a user's fault is never retried": ({}, {"prepare": "U"}, ["fail prepare, UserFault: prepare: U happened"]),
    "a user's fault in training fails the run whatever else runs": (
        {},
        TRAINED_1 | {"evaluate_0": "R", "train_1": "U"},
        ["fail train 1, UserFault: train 1: U happened"],
    ),
    "an exhausted evaluation does not hold up the run": (
        {},
        TRAINED_1 | {"evaluate_0": "FFFF"},
        ["give up evaluate 0: F happened", "start evaluate 1 a1", "start generate 2 a1"],
    ),
    "nor does an evaluation's user's fault": (
        {"parallel": False},
        TRAINED_1 | {"evaluate_1": "U"},
        ["give up evaluate 1: U happened", "start generate 2 a1"],
    ),
    "the next evaluation takes place all the same": (
        {"iterations": 1},
        TRAINED_1 | {"evaluate_0": "U"},
        ["give up evaluate 0: U happened", "start evaluate 1 a1"],
    ),
    "a run ends without its broken evaluations": (
        {"iterations": 1},
        TRAINED_1 | {"evaluate_0": "U", "evaluate_1": "FFFF"},
        ["give up evaluate 0: U happened", "give up evaluate 1: F happened", "finish"],
    ),
}


@pytest.mark.parametrize(("facts", "letters", "expected"), DECISIONS.values(), ids=DECISIONS)
def test_decision(facts: dict[str, Any], letters: dict[str, str], expected: list[str]) -> None:
    plan = Plan(**{"iterations": 2, "retries": 3, "parallel": True, **facts})
    assert [shown(action) for action in decide(plan, history(**letters))] == expected


@pytest.mark.parametrize(("letters", "delay_seconds"), [("U", 0.0), ("FFFF", 0.0), ("FFFFI", 10.0)])
def test_a_renewed_budget_starts_the_step_again(letters: str, delay_seconds: float) -> None:
    tried = attempts(letters).renewed()
    assert tried.charged == 0
    (action,) = decide(Plan(iterations=1, retries=3, parallel=True), {step("prepare"): tried})
    assert action == Start(step("prepare"), len(letters) + 1, delay_seconds)


@pytest.mark.parametrize(
    ("outcome", "delay_seconds"),
    [(Outcome.DISRUPTED, 10.0), (Outcome.EVICTED, 0.0), (Outcome.SUSPENDED, 0.0), (Outcome.VANISHED, 10.0)],
)
def test_what_the_run_did_not_cause_is_not_charged(outcome: Outcome, delay_seconds: float) -> None:
    tried = Attempts().started().ended(outcome)
    (action,) = decide(Plan(iterations=1, retries=0, parallel=True), {step("prepare"): tried})
    assert action == Start(step("prepare"), 2, delay_seconds)


def test_a_renewed_budget_repeats_nothing_that_is_done() -> None:
    done = {at: tried.renewed() for at, tried in history(**DONE_1).items()}
    assert decide(Plan(iterations=1, retries=3, parallel=True), done) == (Finish(),)


class Executor:
    """Does what `decide` says, with outcomes that somebody draws, and holds the promises on the way."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.history: dict[Step, Attempts] = {}

    def running(self) -> list[Step]:
        return [at for at, tried in self.history.items() if tried.last is Outcome.RUNNING]

    def start(self, action: Start) -> None:
        before = self.history.get(action.step, Attempts())
        assert before.last not in (Outcome.RUNNING, Outcome.SUCCEEDED), "two live attempts, or a finished step again"
        assert action.attempt == before.made + 1, "an attempt's number must be new"
        for needed in inputs(action.step):
            assert self.history[needed].last is Outcome.SUCCEEDED, f"{action.step} started before {needed}"
        self.history[action.step] = before.started()
        assert len(self.running()) <= (2 if self.plan.parallel else 1)
        assert sum(at.stage is Stage.EVALUATE for at in self.running()) <= 1

    def end(self, at: Step, outcome: Outcome) -> None:
        self.history[at] = self.history[at].ended(outcome)


@given(
    data=st.data(),
    iterations=st.integers(0, 4),
    retries=st.integers(0, 3),
    parallel=st.booleans(),
)
def test_any_run_ends_and_keeps_its_promises(
    data: st.DataObject, iterations: int, retries: int, parallel: bool
) -> None:
    executor = Executor(Plan(iterations=iterations, retries=retries, parallel=parallel))
    interruptions = 5
    for _ in range((4 * iterations + 2) * (retries + 1) + interruptions + 1):
        actions = decide(executor.plan, executor.history)
        for action in actions:
            if isinstance(action, Start):
                executor.start(action)
        if isinstance(actions[-1], Finish | Fail):
            break
        at = data.draw(st.sampled_from(executor.running()))
        drawn = data.draw(
            st.sampled_from([Outcome.SUCCEEDED] * 4 + [Outcome.FAILED, Outcome.DISRUPTED, Outcome.USER_FAULT])
        )
        outcome = Outcome.SUCCEEDED if drawn is Outcome.DISRUPTED and interruptions == 0 else drawn
        interruptions -= outcome is Outcome.DISRUPTED
        executor.end(at, outcome)
    else:
        pytest.fail("the run did not end")
    if isinstance(actions[-1], Finish):
        trained = {at for at, tried in executor.history.items() if tried.last is Outcome.SUCCEEDED}
        assert trained >= {at for at in schedule(iterations) if at.stage is not Stage.EVALUATE}
        assert executor.running() == []
