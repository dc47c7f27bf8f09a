"""The status: its conditions, its size, and that nothing is lost on the way back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml
from sppo_operator.conditions import Holds
from sppo_operator.decide import Action, Fail, Finish, GiveUp, Outcome, Stage, Start, Step, Wait, schedule
from sppo_operator.facts import Record, WinRate, best_iteration, decimal, falling_iteration, win_rate
from sppo_operator.schema import schema_causes, spporun_schema
from sppo_operator.spec import Run
from sppo_operator.status import Facts, records_of, status_of
from sppo_operator.summary import duration
from sppo_operator.validation import admit

NOW, LATER = "2026-01-31T12:00:00Z", "2026-01-31T12:01:40Z"
MANIFEST = yaml.safe_load("""
apiVersion: sppo.dev/v1alpha1
kind: SPPORun
metadata: {name: demo, generation: 3}
spec:
  iterations: 100
  model: {source: models/base}
  prompts: {source: prompts.jsonl, perIteration: 10, heldOut: 8}
  preference: {kind: PairRM, pairRM: {model: {source: models/pairrm}}}
  objective: {beta: '0.05'}
  training: {learningRate: '0.000005'}
  workspace: {claimName: models}
""")
RUN = Run.of(admit(MANIFEST))
PREPARE, BASE, GENERATE, TRAIN = (
    Step(0, Stage.PREPARE),
    Step(0, Stage.EVALUATE),
    Step(1, Stage.GENERATE),
    Step(1, Stage.TRAIN),
)


def record(*outcomes: Outcome, message: str = "", **metrics: float) -> Record:
    result = Record()
    for outcome in outcomes:
        result = result.started(NOW)
        if outcome is not Outcome.RUNNING:
            result = result.ended(outcome, LATER, message=message, exit_code=0)
    return result.with_result(metrics, "abc") if outcomes[-1] is Outcome.SUCCEEDED else result


def on_gpus(record: Record) -> Record:
    """Every attempt on eight GPUs, at work for a minute before its pods last began."""
    attempts = [replace(attempt, gpus=8, active_seconds=60) for attempt in record.newest]
    if record.attempts.last is Outcome.RUNNING:
        attempts[-1] = replace(attempts[-1], active_since=LATER)
    return replace(record, newest=tuple(attempts))


def evaluated(value: float) -> Record:
    return record(Outcome.SUCCEEDED, winRateBase=value, winRateBaseLow=value - 0.04, winRateBaseHigh=value + 0.04)


def trained(best: float, worst: float) -> Record:
    return record(Outcome.SUCCEEDED, logRatioBest=best, logRatioWorst=worst)


def shown(records: dict[Step, Record], *actions: Action, **facts: Any) -> dict[str, Any]:
    """The status, after the CRD's schema has accepted it."""
    status = status_of(RUN, Facts(records=records, **facts), actions, {}, NOW)
    assert [str(cause) for cause in schema_causes(MANIFEST | {"status": status}, spporun_schema())] == []
    return status


def conditions(status: dict[str, Any]) -> dict[str, str]:
    return {item["type"]: f"{item['status']} {item['reason']}" for item in status["conditions"]}


QUIET = {"Queued": "False NotQueued", "Suspended": "False NotSuspended", "Degraded": "False AsExpected"}
MOMENTS: dict[str, tuple[dict[Step, Record], tuple[Action, ...], dict[str, Any], str, dict[str, str]]] = {
    "the first visit": (
        {},
        (Start(PREPARE, 1),),
        {},
        "Waiting",
        QUIET | {"Succeeded": "Unknown Running", "Progressing": "True Running"},
    ),
    "two stages at work": (
        {PREPARE: record(Outcome.SUCCEEDED), BASE: record(Outcome.RUNNING), GENERATE: record(Outcome.RUNNING)},
        (Wait(BASE), Wait(GENERATE)),
        {},
        "Generating",
        QUIET | {"Succeeded": "Unknown Running", "Progressing": "True Running"},
    ),
    "stopped": (
        {PREPARE: record(Outcome.SUSPENDED)},
        (Start(PREPARE, 2),),
        {"holds": Holds(stopped=True)},
        "Stopped",
        QUIET | {"Succeeded": "Unknown Running", "Progressing": "False Stopped"},
    ),
    "failed": (
        {PREPARE: record(Outcome.USER_FAULT)},
        (Fail(PREPARE, "UserFault", "prepare: mend it"),),
        {},
        "Failed",
        QUIET | {"Succeeded": "False UserFault", "Progressing": "False UserFault"},
    ),
    "finished": (
        {PREPARE: record(Outcome.SUCCEEDED)},
        (Finish(),),
        {},
        "Succeeded",
        QUIET | {"Succeeded": "True Finished", "Progressing": "False Finished"},
    ),
    "finished without an evaluation": (
        {PREPARE: record(Outcome.SUCCEEDED), BASE: record(Outcome.FAILED)},
        (GiveUp(BASE, "no memory"), Finish()),
        {},
        "Succeeded",
        QUIET | {"Succeeded": "True Finished", "Progressing": "False Finished", "Degraded": "True EvaluationFailed"},
    ),
    "likelihoods that fall": (
        {TRAIN: trained(-1.0, -2.0), Step(2, Stage.TRAIN): trained(-1.5, -3.0)},
        (Finish(),),
        {},
        "Succeeded",
        QUIET | {"Succeeded": "True Finished", "Progressing": "False Finished", "Degraded": "True LikelihoodFalling"},
    ),
}


@pytest.mark.parametrize(("records", "actions", "facts", "phase", "expected"), MOMENTS.values(), ids=MOMENTS)
def test_conditions(
    records: dict[Step, Record],
    actions: tuple[Action, ...],
    facts: dict[str, Any],
    phase: str,
    expected: dict[str, str],
) -> None:
    status = shown(records, *actions, **facts)
    assert conditions(status) == expected
    assert status["phase"] == phase
    assert {item["observedGeneration"] for item in status["conditions"]} == {3}


def test_a_conditions_time_moves_with_its_status_only() -> None:
    first = shown({}, Start(PREPARE, 1))
    failing = Fail(PREPARE, "UserFault", "prepare: mend it")
    second = status_of(RUN, Facts(records={}), (failing,), first, LATER)
    times = {item["type"]: item["lastTransitionTime"] for item in second["conditions"]}
    assert times == {"Succeeded": LATER, "Progressing": LATER, "Queued": NOW, "Suspended": NOW, "Degraded": NOW}
    assert (second["startTime"], second["finishTime"]) == (NOW, LATER)
    assert "finishTime" not in status_of(RUN, Facts(records={}), (Start(PREPARE, 2),), second, LATER)


def test_what_was_recorded_comes_back() -> None:
    records = {
        PREPARE: record(Outcome.FAILED, Outcome.SUCCEEDED, rows=40),
        BASE: evaluated(0.5),
        GENERATE: record(Outcome.DISRUPTED, Outcome.RUNNING),
        TRAIN: on_gpus(record(Outcome.DISRUPTED, Outcome.RUNNING)),
    }
    assert records_of({"status": shown(records, Wait(GENERATE), gpu_seconds={"train": 80})}) == records


def test_a_status_of_an_operator_that_counted_no_gpus_still_reads() -> None:
    status = shown({TRAIN: on_gpus(record(Outcome.FAILED, Outcome.RUNNING))}, Wait(TRAIN))
    for attempt in status["iterations"][1]["stages"][2]["attempts"]:
        for field in ("gpus", "activeSince", "activeSeconds"):
            attempt.pop(field, None)
    assert records_of({"status": status}) == {TRAIN: record(Outcome.FAILED, Outcome.RUNNING)}


def test_without_gpus_the_status_says_nothing_of_them() -> None:
    status = shown({PREPARE: record(Outcome.SUCCEEDED)}, Finish(), gpu_seconds={"prepare": 0})
    assert "gpuSeconds" not in status
    assert "gpus" not in json.dumps(status)


def test_of_many_attempts_the_newest_are_kept() -> None:
    records = {PREPARE: record(*[Outcome.DISRUPTED] * 9, Outcome.RUNNING)}
    (stage, *_) = shown(records, Wait(PREPARE))["iterations"][0]["stages"]
    assert [attempt["number"] for attempt in stage["attempts"]] == [7, 8, 9, 10]
    assert stage["job"] == "demo-i0-prepare-a10"
    assert records_of({"status": shown(records, Wait(PREPARE))})[PREPARE].attempts.made == 10


def test_the_longest_run_fits_and_no_step_is_forgotten() -> None:
    long = "ü" * 4000
    figures = {f"figure{index:02d}": 1.234567891e-100 for index in range(40)}
    records = {
        step: replace(
            on_gpus(record(*[Outcome.FAILED] * 3, Outcome.SUCCEEDED, message=long, **figures)), content_digest="a" * 64
        )
        for step in schedule(100)
    }
    records |= {Step(number, Stage.EVALUATE): evaluated(0.5) for number in range(101)}
    policies = {number: f"/workspace/lab/demo/i{number}/train/a-0123456789ab/model" for number in range(1, 101)}
    gpu_seconds = {stage.value: 2**40 for stage in Stage}
    status = shown(records, Finish(), policies=policies, gpu_seconds=gpu_seconds)
    assert len(json.dumps(status, ensure_ascii=False).encode()) < 256 * 1024
    back = records_of({"status": status})
    assert set(back) == set(records)
    assert {item.attempts.last for item in back.values()} == {Outcome.SUCCEEDED}
    assert [win_rate(back, number) for number in range(101)] == [win_rate(records, number) for number in range(101)]


def test_what_the_crd_has_no_room_for_is_left_out() -> None:
    long = replace(RUN, retry="r" * 300)
    facts = Facts(records={TRAIN: trained(1.0, -1.0)}, policies={1: "/" + "p" * 400}, report="/" + "r" * 4096)
    status = status_of(long, facts, (Finish(),), {}, NOW)
    assert [str(cause) for cause in schema_causes(MANIFEST | {"status": status}, spporun_schema())] == []
    assert status["observedRetry"] == "r" * 256
    assert "policy" not in status["iterations"][1]
    assert "report" not in status
    fits = replace(facts, policies={1: "/" + "p" * 399}, report="/" + "r" * 4095)
    status = status_of(long, fits, (Finish(),), {}, NOW)
    assert (status["iterations"][1]["policy"], status["report"]) == (fits.policies[1], fits.report)


def test_an_old_iteration_whose_evaluation_is_to_come_stays_so() -> None:
    records = {step: record(Outcome.SUCCEEDED) for step in schedule(20) if step.stage is not Stage.EVALUATE}
    records[BASE] = record(Outcome.RUNNING)
    assert set(records_of({"status": shown(records, Wait(BASE))})) == set(records)


def test_an_old_iteration_whose_evaluation_failed_says_why() -> None:
    records = {step: record(Outcome.SUCCEEDED, winRateBase=0.5) for step in schedule(20)}
    lost = Step(3, Stage.EVALUATE)
    records[lost] = record(Outcome.FAILED, message="no memory")
    assert records_of({"status": shown(records, GiveUp(lost, "no memory"), Finish())})[lost] == records[lost]


def test_progress_and_summary() -> None:
    progress = {"done": 3, "total": 8, "unit": "prompts", "secondsLeft": 125, "figures": {"tokensPerSecond": 9.54}}
    running = replace(record(Outcome.RUNNING), progress=progress)
    status = shown({PREPARE: record(Outcome.SUCCEEDED), BASE: evaluated(0.5), GENERATE: running}, Wait(GENERATE))
    assert status["summary"] == {
        "iteration": "1/100",
        "stage": "generate 1",
        "progress": "37%",
        "timeLeft": "2m",
        "winRate": "0.50 [0.46, 0.54]",
    }
    assert status["iterations"][1]["stages"][0]["progress"]["figures"] == {"tokensPerSecond": "9.54"}


@pytest.mark.parametrize(
    ("ratios", "falling"),
    [
        ([(1.0, -1.0), (2.0, -2.0)], None),
        ([(-1.0, -2.0), (-2.0, -3.0)], 2),
        ([(-1.0, -2.0), (-0.5, -3.0)], None),
        ([(1.0, -2.0), (0.5, -3.0)], None),
        ([(-1.0, -2.0)], None),
        ([(-1.0, -2.0), (-2.0, -3.0), (-1.0, -1.0)], None),
    ],
    ids=["apart", "both fall", "best recovers", "best still positive", "one iteration", "recovered"],
)
def test_falling_likelihoods(ratios: list[tuple[float, float]], falling: int | None) -> None:
    records = {Step(number, Stage.TRAIN): trained(*both) for number, both in enumerate(ratios, 1)}
    assert falling_iteration(records) == falling


def test_the_best_iteration_is_the_earliest_of_equals_and_never_the_base() -> None:
    rates = [0.9, 0.6, 0.7, 0.7]
    assert best_iteration({Step(number, Stage.EVALUATE): evaluated(rate) for number, rate in enumerate(rates)}) == 2
    assert best_iteration({BASE: evaluated(0.5)}) is None


def test_a_win_rate_needs_its_interval() -> None:
    assert win_rate({BASE: record(Outcome.SUCCEEDED, winRateBase=0.5)}, 0) is None
    assert str(WinRate(value=0.731, low=0.688, high=0.77)) == "0.73 [0.69, 0.77]"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (89, "89s"), (90, "2m"), (3600, "60m"), (5400, "1h30m"), (90000, "25h00m"), (300000, "3d")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(3, "3"), (0.1 + 0.2, "0.3"), (1e-7, "1e-07"), (123456789, "123456789"), ("text", "text")]
)
def test_decimal(value: object, text: str) -> None:
    assert decimal(value) == text


def test_evaluations_that_lag_behind_do_not_bring_back_what_was_done_before_them() -> None:
    trainings = {step: record(Outcome.SUCCEEDED) for step in schedule(7) if step.stage is not Stage.EVALUATE}
    began = records_of({"status": shown(trainings, Wait("waits"))}) | {Step(1, Stage.EVALUATE): record(Outcome.RUNNING)}
    again = records_of({"status": shown(began, Wait("waits"))})
    assert {step: seen.attempts.last for step, seen in again.items()} == {
        step: seen.attempts.last for step, seen in began.items()
    }


@pytest.mark.parametrize("value", ["nan", "-inf", "1e999", "many", ""])
def test_a_metric_that_is_no_finite_number_is_none(value: str) -> None:
    odd = {"winRateBase": value, "winRateBaseLow": "0.4", "winRateBaseHigh": "0.6"}
    records = {Step(1, Stage.EVALUATE): replace(record(Outcome.SUCCEEDED), metrics=odd)}
    assert records[Step(1, Stage.EVALUATE)].number("winRateBase") is None
    assert win_rate(records, 1) is None
    assert best_iteration(records) is None
