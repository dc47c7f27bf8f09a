"""Whole runs on a simulated cluster: the order of things, what users do meanwhile, failures, and refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime

import pytest
from simulated_api import Call, Object
from simulated_cluster import HANGS, LOST
from simulated_operator import FAILS, USER_FAULT, SimulatedOperator, Watchman, held_at
from sppo_operator.cache import Kind
from sppo_operator.errors import ApiError, ForbiddenError, RefusedError, UnavailableError

UNDISTURBED = (
    "i0-prepare-a1 i0-evaluate-a1 i1-generate-a1 i1-score-a1 i1-train-a1 i1-evaluate-a1 "
    "i2-generate-a1 i2-score-a1 i2-train-a1 i2-evaluate-a1"
)


def writes(calls: list[Call]) -> list[str]:
    return [str(call) for call in calls if call.verb not in ("get", "list", "try") and call.at.plural != "events"]


def status_writes(calls: list[Call]) -> int:
    return sum(call.at.part == "status" for call in calls)


# The undisturbed run


def test_an_undisturbed_run() -> None:
    operator = SimulatedOperator()
    operator.finish()
    assert operator.jobs() == UNDISTURBED.split()
    assert set(operator.attempts().values()) == {"Succeeded"}
    assert operator.condition("Succeeded")["status"] == "True"
    policies = {item["number"]: item.get("policy") for item in operator.status["iterations"]}
    assert policies == {0: None, 1: "pvc://models/lab/demo/i1/train/model", 2: "pvc://models/lab/demo/i2/train/model"}
    assert max(map(status_writes, operator.passes)) == 1


def test_a_pass_without_news_writes_nothing() -> None:
    operator = SimulatedOperator()
    operator.steps(lambda: len(operator.jobs()) == 3)
    for _ in range(3):
        operator.look()
        assert operator.passes[-1] == []
    operator.finish()
    operator.restart()
    operator.look()
    assert writes(operator.passes[-1]) == []


def test_events_come_once_and_tell_the_story() -> None:
    operator = SimulatedOperator(iterations=1, evaluation={"parallel": False})
    operator.finish()
    stages = ["i0-prepare", "i0-evaluate", "i1-generate", "i1-score", "i1-train", "i1-evaluate"]
    told = [
        text
        for stage in stages
        for text in (
            f"StageStarted Started Job demo-{stage}-a1",
            f"StageSucceeded Job demo-{stage}-a1 ended as Succeeded",
        )
    ]
    assert operator.events() == [*told, "RunSucceeded All iterations are trained."]


# What users do


def test_suspend_stops_the_pods_and_resume_goes_on_with_the_same_job() -> None:
    operator = held_at("generate")
    operator.edit(spec={"suspend": True})
    operator.rest()
    assert not any(operator.at_work(stage) for stage in ("generate", "evaluate"))
    assert operator.phase == "Suspended"
    assert operator.condition("Suspended")["status"] == "True"
    assert operator.condition("Progressing")["reason"] == "Suspended"
    operator.edit(spec={"suspend": False})
    operator.finish()
    assert operator.attempts()["generate 1"] == "Succeeded"
    assert [text.split()[0] for text in operator.events() if "Suspend" in text or "Resume" in text] == [
        "Suspended",
        "Resumed",
    ]


@pytest.mark.parametrize(("seen", "outcomes"), [(True, "Suspended Succeeded"), (False, "Succeeded")])
def test_a_suspended_training_ends_as_suspended_if_its_job_fails_of_it(seen: bool, outcomes: str) -> None:
    operator = held_at("train")
    operator.cluster.sees_stopped_pods = seen
    operator.edit(spec={"suspend": True})
    operator.rest()
    assert operator.phase == "Suspended"
    operator.edit(spec={"suspend": False})
    operator.finish()
    assert operator.attempts()["train 1"] == outcomes
    assert "failures" not in operator.status


def test_suspend_in_a_queue_deletes_the_job_and_resume_is_the_next_attempt() -> None:
    operator = held_at("generate", queue={"name": "team"})
    operator.edit(spec={"suspend": True})
    operator.rest()
    assert operator.live_jobs() == []
    assert operator.phase == "Suspended"
    operator.edit(spec={"suspend": False})
    operator.finish()
    assert operator.attempts()["generate 1"] == "Suspended Succeeded"
    assert "failures" not in operator.status


def test_a_job_that_waits_in_a_queue_is_shown_and_never_unsuspended() -> None:
    operator = SimulatedOperator(iterations=1, queue={"name": "team"})
    operator.cluster.admitting = False
    operator.rest()
    assert (operator.phase, operator.condition("Progressing")["reason"]) == ("Queued", "Queued")
    assert operator.condition("Queued")["message"] == "prepare waits: queue team: so it was decided"
    assert [call.verb for call in operator.cluster.calls].count("patch") == 0
    operator.cluster.admitting = True
    operator.finish()
    assert [text.split()[0] for text in operator.events()][:3] == ["StageStarted", "Queued", "Admitted"]


@pytest.mark.parametrize("queue", [{"name": "other"}, {"name": "team", "priorityClass": "high"}, None])
def test_a_job_that_waits_follows_the_run_to_its_new_queue(queue: dict[str, str] | None) -> None:
    operator = SimulatedOperator(iterations=1, queue={"name": "team"})
    operator.cluster.admitting = False
    operator.rest()
    operator.edit(spec={"queue": queue})
    operator.rest(2)
    operator.cluster.admitting = True
    operator.finish()
    assert operator.attempts()["prepare 0"] == "Vanished Succeeded"
    newest = max(operator.cluster.all("jobs", "sppo.dev/stage=prepare"), key=lambda job: job["metadata"]["name"])
    assert newest["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") == (queue or {}).get("name")


def test_a_job_that_kueue_put_into_its_default_queue_stays_there() -> None:
    operator = SimulatedOperator(iterations=1, queue={"name": "default"})
    operator.cluster.admitting = False
    operator.rest()
    operator.edit(spec={"queue": None})
    operator.rest()
    assert operator.jobs() == ["i0-prepare-a1"]


def test_an_evicted_training_is_another_attempt_and_counts_as_an_eviction() -> None:
    operator = held_at("train", queue={"name": "team"})
    operator.cluster.evict(operator.live_jobs()[0])
    operator.cluster.admitting = False
    operator.rest()
    operator.cluster.admitting = True
    operator.finish()
    assert operator.attempts()["train 1"] == "Eviction Succeeded"
    assert operator.status["failures"] == {"eviction": 1}


def test_a_deleted_run_is_left_to_the_garbage_collector() -> None:
    operator = held_at("generate")
    operator.cluster.remove(operator.cluster.at(operator.run), propagation="Foreground")
    calls = len(operator.cluster.calls)
    operator.look() if operator.cluster.deliver(operator.cache, Kind.RUN) else None
    for _ in range(8):
        operator.cluster.tick()
    assert operator.cluster.all("jobs") == operator.cluster.all("pods") == operator.cluster.all("spporuns") == []
    assert operator.cluster.calls[calls:] == []


def test_finished_jobs_go_after_their_retention_and_nothing_is_forgotten() -> None:
    operator = SimulatedOperator(iterations=1, retention={"finishedJobsSeconds": 5})
    operator.cluster.disturb = Watchman(operator)
    operator.finish()
    before = operator.status
    operator.steps(lambda: operator.cluster.all("jobs") == [])
    operator.rest()
    assert operator.status == before
    assert operator.attempts()["prepare 0"] == "Succeeded"


def test_more_iterations_turn_succeeded_back() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.finish()
    operator.edit(spec={"iterations": 2})
    operator.steps(lambda: operator.condition("Succeeded")["status"] == "Unknown")
    assert "finishTime" not in operator.status
    operator.finish()
    assert Counter(operator.jobs()) == Counter(UNDISTURBED.split())


def test_a_run_keeps_its_image_when_the_operator_is_upgraded() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.steps(lambda: operator.phase == "Generating")
    operator.image = "trainer:2"
    operator.restart()
    operator.finish()
    images = {pod["spec"]["containers"][0]["image"] for pod in operator.cluster.all("pods")}
    assert images == {operator.status["image"]} == {"trainer:1"}


def test_an_image_of_the_spec_is_for_the_next_attempts() -> None:
    operator = held_at("generate")
    operator.edit(spec={"image": "mine:1"})
    (job,) = operator.live_jobs()
    operator.cluster.remove(operator.cluster.at(job))
    operator.finish()
    newest = next(job for job in operator.cluster.all("jobs") if "train" in job["metadata"]["name"])
    assert newest["spec"]["template"]["spec"]["containers"][0]["image"] == operator.status["image"] == "mine:1"


def test_progress_is_shown() -> None:
    operator = held_at("train")
    line = '{"progress": {"done": %d, "total": 8, "unit": "steps", "secondsLeft": 60, "figures": {"loss": 0.5}}}\n'
    operator.cluster.logs["demo-i1-train-a1"] = "loading\n" + line % 2
    operator.read_logs()
    operator.look()
    assert operator.status["summary"]["progress"] == "25%"
    stage = operator.status["iterations"][1]["stages"][2]
    # Two workers, each of which did 2 of its 8.
    assert stage["progress"] == {"done": 4, "total": 16, "unit": "steps", "secondsLeft": 60, "figures": {"loss": "0.5"}}


def test_a_status_that_was_wiped_is_made_again_from_the_jobs() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script["train 1"] = [FAILS]
    operator.steps(lambda: "i1-train-a2" in operator.jobs())
    before, jobs = operator.attempts(), operator.jobs()
    operator.cluster.change(operator.run, "status", **dict.fromkeys(operator.status))
    operator.rest(1)
    assert operator.attempts() == before
    assert operator.status["failures"] == {"application": 1}
    assert operator.jobs() == jobs
    operator.finish()


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
    assert operator.condition("Succeeded")["message"].startswith("train cannot be made: ")
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


@pytest.mark.parametrize(
    "error", [ForbiddenError("exceeded quota: jobs", status=403), UnavailableError("busy", status=500)]
)
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


def test_a_missing_right_shows_on_the_first_visit() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.admission = forbid("prepare", ForbiddenError("exceeded quota: jobs", status=403))
    operator.steps(lambda: operator.condition("Progressing")["reason"] == "Blocked")
    operator.cluster.admission = lambda body: None
    operator.finish()


# Jobs of the same name


def foreign(operator: SimulatedOperator, owner_uid: str) -> Object:
    labels = {"sppo.dev/run": "demo", "sppo.dev/stage": "prepare", "sppo.dev/iteration": "0", "sppo.dev/attempt": "1"}
    owner = {"kind": "SPPORun", "name": "demo", "uid": owner_uid, "controller": True}
    metadata = {"name": "demo-i0-prepare-a1", "namespace": "lab", "labels": labels, "ownerReferences": [owner]}
    spec = {"suspend": True, "completions": 1, "template": {"spec": {"containers": []}}}
    return operator.cluster.add("jobs", {"metadata": metadata, "spec": spec})


def test_a_job_of_an_earlier_run_that_is_going_away_is_awaited() -> None:
    operator = SimulatedOperator(iterations=1)
    foreign(operator, "of an earlier run")
    operator.finish()
    assert operator.attempts()["prepare 0"] == "Succeeded"


def test_a_job_of_somebody_else_blocks_the_run_until_it_is_gone() -> None:
    operator = SimulatedOperator(iterations=1)
    owner = operator.cluster.add("configmaps", {"metadata": {"name": "somebody", "namespace": "lab"}})
    job = foreign(operator, owner["metadata"]["uid"])
    operator.steps(lambda: operator.condition("Progressing")["reason"] == "Blocked")
    assert operator.condition("Progressing")["message"].startswith("Job demo-i0-prepare-a1 belongs to somebody else")
    operator.cluster.remove(operator.cluster.at(job))
    operator.finish()
    assert operator.attempts()["prepare 0"] == "Succeeded"
