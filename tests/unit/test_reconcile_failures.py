"""Runs on a simulated cluster whose stages fail, whose Jobs are refused, and whose names are taken."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest
from simulated_api import Call, Object
from simulated_cluster import HANGS, LOST
from simulated_operator import FAILS, USER_FAULT, SimulatedOperator, Watchman, held_at
from sppo_operator.errors import ApiError, ForbiddenError, RefusedError, UnavailableError
from sppo_operator.facts import timestamp

# Failures


def test_an_application_failure_is_retried_after_a_while_and_charged() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script["train 1"] = [FAILS]
    operator.finish()
    attempts = operator.status["iterations"][1]["stages"][2]["attempts"]
    assert [item["outcome"] for item in attempts] == ["Application", "Succeeded"]
    assert attempts[0]["message"].endswith("boom")
    waited = seconds(attempts[1]["startTime"]) - seconds(attempts[0]["finishTime"])
    assert 10 <= waited < 15
    assert operator.status["failures"] == {"application": 1}
    assert operator.status["iterations"][1]["stages"][2]["charged"] == 1


def seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def test_a_shard_may_fail_as_often_as_the_run_allows_and_then_the_run_fails() -> None:
    operator = SimulatedOperator(iterations=1, retries={"limit": 2})
    operator.cluster.script["score 1"] = [FAILS] * 3
    operator.finish("Failed")
    assert operator.condition("Succeeded")["reason"] == "RetriesExhausted"
    assert operator.jobs().count("i1-score-a1") == 1 and "i1-score-a2" not in operator.jobs()
    operator.edit(spec={"retries": {"limit": 5}})
    operator.finish()
    assert operator.attempts()["score 1"] == "Application Succeeded"
    limits = [job["spec"]["backoffLimitPerIndex"] for job in operator.cluster.all("jobs", "sppo.dev/stage=score")]
    assert limits == [2, 2]  # 2 retries, then what is left of 5 after 3 failures


def test_a_users_fault_fails_the_run_and_a_retry_mends_it() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script["prepare"] = [USER_FAULT]
    operator.finish("Failed")
    assert {**operator.condition("Succeeded"), "lastTransitionTime": ""} == {
        "type": "Succeeded",
        "status": "False",
        "reason": "UserFault",
        "message": "prepare: prompts.source lacks a column: name it",
        "observedGeneration": 1,
        "lastTransitionTime": "",
    }
    operator.edit(metadata={"annotations": {"sppo.dev/retry": "1"}})
    operator.finish()
    assert operator.attempts()["prepare 0"] == "UserFault Succeeded"
    told = [text.split()[0] for text in operator.events()]
    assert told.count("RunFailed") == told.count("StageFailed") == told.count("RunSucceeded") == 1


def test_a_retry_is_not_lost_while_the_run_is_suspended() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script["prepare"] = [USER_FAULT]
    operator.finish("Failed")
    operator.edit(metadata={"annotations": {"sppo.dev/retry": "1"}}, spec={"suspend": True})
    operator.rest()
    assert operator.phase == "Suspended"
    operator.edit(spec={"suspend": False})
    operator.finish()


def test_a_long_retry_annotation_renews_once() -> None:
    operator = SimulatedOperator(iterations=1, retries={"limit": 0})
    operator.edit(metadata={"annotations": {"sppo.dev/retry": "x" * 300}})
    operator.cluster.script["prepare"] = [FAILS]
    operator.finish("Failed")
    operator.look()
    assert operator.passes[-1] == []


def test_what_runs_beside_a_failure_is_stopped() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script |= {"evaluate 0": [HANGS], "generate 1": [USER_FAULT]}
    operator.finish("Failed")
    assert operator.live_jobs() == []
    assert operator.attempts()["evaluate 0"] == "Vanished"


def test_a_failed_evaluation_leaves_the_run_degraded() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script["evaluate 1"] = [USER_FAULT]
    operator.finish()
    assert operator.condition("Degraded")["reason"] == "EvaluationFailed"


def test_a_stage_that_takes_too_long_fails_and_says_so() -> None:
    operator = held_at("train", stages={"train": {"deadlineSeconds": 100}}, retries={"limit": 0})
    operator.cluster.wait(100)
    operator.finish("Failed")
    message = "stopped after spec.stages.train.deadlineSeconds 100: raise it or remove it"
    assert message in operator.condition("Succeeded")["message"]


def test_a_job_that_was_removed_is_made_again_uncharged_when_its_pods_are_gone() -> None:
    operator = held_at("generate")
    (job,) = operator.live_jobs()
    operator.cluster.remove(operator.cluster.at(job))
    operator.finish()
    assert operator.attempts()["generate 1"] == "Vanished Succeeded"
    assert operator.status["failures"] == {"disruption": 1}


def test_a_job_whose_pods_cannot_start_is_made_again_when_the_run_was_changed() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script["generate 1"] = [LOST, LOST]
    operator.steps(lambda: operator.at_work("generate"))
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: 3 Insufficient cpu."}
    for pod in operator.cluster.all("pods", "sppo.dev/stage=generate"):
        operator.cluster.change(pod, "status", phase="Pending", conditions=[unscheduled])
    operator.steps(lambda: operator.condition("Progressing")["reason"] == "PodsStuck")
    operator.rest()
    assert operator.jobs().count("i1-generate-a1") == 1 and "i1-generate-a2" not in operator.jobs()
    operator.edit(spec={"image": "trainer:2"})
    operator.finish()
    assert operator.attempts()["generate 1"] == "Vanished Succeeded"


@pytest.mark.parametrize("why", ["because it is being terminated", "exceeded quota: pods"])
def test_a_job_whose_deleted_pods_are_not_replaced_goes_with_its_namespace(why: str) -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script["generate 1"] = [HANGS, HANGS]
    operator.steps(lambda: operator.at_work("generate"))
    operator.cluster.admission = forbid("generate", ForbiddenError(why, status=403))
    (one, _) = operator.cluster.all("pods", "sppo.dev/stage=generate")
    deleted = {"deletionTimestamp": timestamp(operator.cluster.now), "finalizers": ["batch.kubernetes.io/job-tracking"]}
    operator.cluster.change(operator.cluster.change(one, metadata=deleted), "status", phase="Failed")
    operator.cluster.wait(15)
    operator.rest(4)
    names = [job["metadata"]["name"] for job in operator.live_jobs()]
    assert ("demo-i1-generate-a1" in names) == (why == "exceeded quota: pods")


def test_a_training_on_a_lost_node_is_given_up_after_a_minute() -> None:
    operator = SimulatedOperator(iterations=1, evaluation={"parallel": False})
    operator.cluster.disturb = Watchman(operator)
    operator.cluster.script["train 1"] = [LOST, LOST]
    operator.steps(lambda: operator.at_work("train"))
    pods = operator.cluster.all("pods", "sppo.dev/stage=train")
    for pod in pods:
        operator.cluster.remove(operator.cluster.at(pod))
    operator.cluster.disturb = lambda call, done: None  # its pods count as gone
    operator.finish()
    assert operator.attempts()["train 1"] == "Disruption Succeeded"
    assert "demo-i1-train-a1" not in [job["metadata"]["name"] for job in operator.cluster.all("jobs")]


# What the API server refuses


def forbid(stage: str, error: ApiError) -> Callable[[Object], None]:
    def admission(body: Object) -> None:
        if body["metadata"].get("labels", {}).get("sppo.dev/stage") == stage and body.get("kind") == "Job":
            raise error

    return admission


QUANTITY = RefusedError('Job.batch "x" is invalid: spec...resources.limits[cpu]: must be a quantity', status=422)


@pytest.mark.parametrize("cure", ["spec", "annotation"])
def test_a_refused_template_fails_the_run_at_once_until_it_is_mended(cure: str) -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.admission = forbid("train", QUANTITY)
    operator.finish("Failed")
    assert operator.jobs() == []
    assert operator.condition("Succeeded")["reason"] == "Refused"
    assert operator.condition("Succeeded")["message"].startswith("the API server refuses the Job of train: Job.batch")
    before = operator.status
    operator.restart()
    operator.rest(3)
    assert operator.status == before
    operator.cluster.admission = lambda body: None
    if cure == "spec":
        operator.edit(spec={"retries": {"limit": 4}})
    else:
        operator.edit(metadata={"annotations": {"sppo.dev/retry": "1"}})
    operator.finish()


PASSING = [ForbiddenError("exceeded quota: jobs", status=403), UnavailableError("failed calling webhook", status=500)]


@pytest.mark.parametrize("error", PASSING)
def test_a_create_that_is_refused_on_the_way_shows_and_is_tried_again(error: ApiError) -> None:
    operator = SimulatedOperator(iterations=1)
    operator.steps(lambda: operator.phase == "Generating")
    operator.cluster.admission = forbid("score", error)
    operator.steps(lambda: operator.condition("Progressing")["reason"] == "Blocked")
    assert str(error) in operator.condition("Progressing")["message"]
    operator.rest()
    operator.cluster.admission = lambda body: None
    operator.finish()
    assert [text.split()[0] for text in operator.events()].count("Blocked") == 1


@pytest.mark.parametrize("error", PASSING)
def test_what_keeps_a_run_from_its_first_job_shows_on_the_first_visit(error: ApiError) -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.admission = forbid("prepare", error)
    operator.steps(lambda: operator.condition("Progressing")["reason"] == "Blocked")
    operator.cluster.admission = lambda body: None
    operator.finish()


# Jobs of the same name


def foreign(operator: SimulatedOperator, owner_uid: str, name: str = "demo-i0-prepare-a1") -> Object:
    """A Job that waits for ever, of somebody else's."""
    _, iteration, stage, attempt = name.split("-")
    step = {"iteration": iteration[1:], "stage": stage, "attempt": attempt[1:]}
    labels = {"sppo.dev/run": "demo", **{f"sppo.dev/{key}": value for key, value in step.items()}}
    owner = {"kind": "SPPORun", "name": "demo", "uid": owner_uid, "controller": True}
    metadata = {"name": name, "namespace": "lab", "labels": labels, "ownerReferences": [owner]}
    spec = {"suspend": True, "completions": 1, "template": {"spec": {"containers": []}}}
    return operator.cluster.add("jobs", {"metadata": metadata, "spec": spec})


def somebody(operator: SimulatedOperator) -> str:
    """The uid of another owner."""
    other = operator.cluster.add("configmaps", {"metadata": {"name": "somebody", "namespace": "lab"}})
    return str(other["metadata"]["uid"])


def test_a_job_of_an_earlier_run_that_is_going_away_is_awaited() -> None:
    operator = SimulatedOperator(iterations=1)
    foreign(operator, "of an earlier run")
    operator.finish()
    assert operator.attempts()["prepare 0"] == "Succeeded"


def test_a_job_of_somebody_else_blocks_the_run_until_it_is_gone() -> None:
    operator = SimulatedOperator(iterations=1)
    job = foreign(operator, somebody(operator))
    operator.steps(lambda: operator.condition("Progressing")["reason"] == "Blocked")
    assert operator.condition("Progressing")["message"].startswith("Job demo-i0-prepare-a1 belongs to somebody else")
    operator.cluster.remove(operator.cluster.at(job))
    operator.finish()
    assert operator.attempts()["prepare 0"] == "Succeeded"


def test_a_job_of_somebody_else_is_not_taken_for_one_that_vanished() -> None:
    operator = held_at("generate")
    (job,) = operator.live_jobs()
    operator.cluster.remove(operator.cluster.at(job))
    foreign(operator, somebody(operator), job["metadata"]["name"])
    operator.finish()
    assert operator.attempts()["generate 1"] == "Vanished Succeeded"


def test_a_name_that_becomes_free_while_its_job_is_looked_at_is_taken_later() -> None:
    operator = SimulatedOperator(iterations=1)
    job = foreign(operator, somebody(operator))

    def disturb(call: Call, done: bool) -> None:
        uids = [item["metadata"]["uid"] for item in operator.cluster.all("jobs")]
        if call.verb == "get" and uids == [job["metadata"]["uid"]]:
            operator.cluster.remove(operator.cluster.at(job))

    operator.cluster.disturb = disturb
    operator.finish()
    assert "Blocked" not in " ".join(operator.events())
