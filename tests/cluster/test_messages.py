"""What a user reads when something is wrong, and that doing what it says helps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from lab import Lab, condition, stage
from namespaces import Namespace
from operators import Operator
from standin_notes import Notes
from standin_runs import STEPS, failing, standin

MINUTES = 60.0
BAD_TEMPLATE = {"score": {"template": {"resources": {"limits": {"cpu": "two"}}}}}
RUNS = {
    "user-fault": {"stages": failing("score:1:user")},
    "crash": {"stages": failing("prepare:0:crash", "score:1:crash", "train:1:crash")},
    "crashes": {"stages": failing("generate:1:crash:times=2")},
    "train-crashes": {"stages": failing("train:1:crash:times=2")},
    "refused": {"stages": BAD_TEMPLATE},
    "evaluation": {"stages": failing("evaluate:0:user", "evaluate:1:crash:times=2")},
}
"""Runs with one retry, all of them under way at the same time."""


@pytest.fixture(scope="module")
def space(lab: Lab, operator: Operator) -> Iterator[Namespace]:
    space = Namespace.create(lab, "messages")
    for name, spec in RUNS.items():
        space.apply(standin(name, **spec))
    yield space
    space.remove()


def start_counts(space: Namespace, run: str) -> dict[str, int]:
    return Notes(space.folder(run)).start_counts()


def test_a_template_that_the_api_server_refuses_is_shown_and_mended_by_a_patch(lab: Lab, space: Namespace) -> None:
    run = lab.until_over(space.name, "refused", seconds=1 * MINUTES)
    failed = condition(run, "Succeeded")
    assert (failed["status"], failed["reason"], run["status"]["phase"]) == ("False", "Refused", "Failed")
    assert failed["message"].startswith("the API server refuses the Job of score: ")
    assert "quantities must match" in failed["message"]
    assert failed["message"].endswith("correct spec.stages.score.template and apply the run again")
    space.patch("refused", {"stages": {"score": {"template": {"resources": {"limits": {"cpu": "0.2"}}}}}})
    lab.until_run(space.name, "refused", lambda run: condition(run, "Succeeded")["status"] == "Unknown")
    run = lab.until_over(space.name, "refused", seconds=5 * MINUTES)
    assert condition(run, "Succeeded")["status"] == "True"


def test_a_users_fault_ends_the_run_at_once_and_the_retry_annotation_goes_on(lab: Lab, space: Namespace) -> None:
    run = lab.until_over(space.name, "user-fault", seconds=4 * MINUTES)
    failed = condition(run, "Succeeded")
    assert (failed["status"], failed["reason"]) == ("False", "UserFault")
    assert failed["message"] == "score 1: prompts.source has a bad line 7: mend it"
    assert [attempt["outcome"] for attempt in stage(run, 1, "score")["attempts"]] == ["UserFault"]
    assert run["status"]["failures"] == {"user": 1}
    lab.until(
        "jobs",
        space.name,
        lambda jobs: not any(active(job) for job in jobs.values()),
        selector="sppo.dev/run=user-fault",
    )

    lab.kubectl("annotate", "sppo", "user-fault", "-n", space.name, "sppo.dev/retry=mended")
    lab.until_run(space.name, "user-fault", lambda run: condition(run, "Succeeded")["status"] == "Unknown")
    run = lab.until_over(space.name, "user-fault", seconds=3 * MINUTES)
    assert condition(run, "Succeeded")["status"] == "True"
    assert start_counts(space, "user-fault") == dict.fromkeys(STEPS, 1) | {"score 1": 2}


def test_a_crash_is_retried_after_a_while(lab: Lab, space: Namespace) -> None:
    run = lab.until_over(space.name, "crash", seconds=6 * MINUTES)
    assert condition(run, "Succeeded")["status"] == "True"
    crashed = {"prepare": 2, "score 1": 2, "train 1": 2}
    assert start_counts(space, "crash") == dict.fromkeys(STEPS, 1) | crashed
    first, second = stage(run, 1, "train")["attempts"]
    assert (first["outcome"], first["exitCode"], second["outcome"]) == ("Application", 1, "Succeeded")
    assert first["message"] == "RuntimeError: the stand-in was told to crash"
    assert seconds_between(first["finishTime"], second["startTime"]) >= 10
    assert run["status"]["failures"]["application"] >= 1


@pytest.mark.parametrize(("name", "failed_stage"), [("crashes", "generate"), ("train-crashes", "train")])
def test_when_no_retry_is_left_a_higher_limit_goes_on(lab: Lab, space: Namespace, name: str, failed_stage: str) -> None:
    run = lab.until_over(space.name, name, seconds=6 * MINUTES)
    failed = condition(run, "Succeeded")
    assert (failed["status"], failed["reason"]) == ("False", "RetriesExhausted")
    assert failed["message"].startswith(
        f"{failed_stage} 1 failed 2 times, and no retry is left: RuntimeError: the stand-in"
    )
    assert start_counts(space, name)[f"{failed_stage} 1"] == 2
    space.patch(name, {"retries": {"limit": 2}})
    lab.until_run(space.name, name, lambda run: condition(run, "Succeeded")["status"] == "Unknown")
    run = lab.until_over(space.name, name, seconds=4 * MINUTES)
    assert condition(run, "Succeeded")["status"] == "True"
    assert start_counts(space, name) == dict.fromkeys(STEPS, 1) | {f"{failed_stage} 1": 3}


def test_evaluations_that_fail_for_good_leave_the_run_degraded_and_succeeded(lab: Lab, space: Namespace) -> None:
    run = lab.until_over(space.name, "evaluation", seconds=6 * MINUTES)
    assert condition(run, "Succeeded")["status"] == "True"
    degraded = condition(run, "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "EvaluationFailed")
    assert degraded["message"].startswith(
        "evaluate 0 failed for good, and the run goes on without it: prompts.source has a bad line 7"
    )
    assert [stage(run, number, "evaluate")["state"] for number in (0, 1)] == ["GivenUp", "GivenUp"]


def active(job: dict[str, Any]) -> int:
    return int(job.get("status", {}).get("active", 0))


def seconds_between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
