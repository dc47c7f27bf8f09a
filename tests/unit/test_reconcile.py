"""Whole runs on a simulated cluster: the order of things, what users do meanwhile, failures, and refusals."""

from __future__ import annotations

from collections import Counter

import pytest
from simulated_api import Call
from simulated_operator import FAILS, SimulatedOperator, Watchman, held_at

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
    assert operator.errors == []
    assert operator.condition("Succeeded")["status"] == "True"
    policies = {item["number"]: item.get("policy") for item in operator.status["iterations"]}
    assert policies == {0: None, 1: "pvc://models/lab/demo/i1/train/model", 2: "pvc://models/lab/demo/i2/train/model"}
    assert max(map(status_writes, operator.passes)) == 1


def test_the_service_of_a_training_is_there_before_its_job() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.finish()
    made = [call.at.plural for call in operator.cluster.calls if call.verb == "create" and call.at.plural != "events"]
    # prepare, evaluate 0, generate, score, then the training and its evaluation
    assert made == ["jobs"] * 4 + ["services"] + ["jobs"] * 2


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
    (workload,) = operator.cluster.all("workloads")
    reason = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "the cohort is full"}
    operator.cluster.change(workload, "status", conditions=[reason])  # which no watch tells
    operator.steps(lambda: operator.condition("Queued")["message"] == "prepare waits: queue team: the cohort is full")
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


GPU_TRAINING = {"train": {"workers": 2, "template": {"resources": {"limits": {"nvidia.com/gpu": "4"}}}}}


def test_gpu_seconds_leave_out_the_time_in_a_queue_and_outlive_the_details() -> None:
    operator = held_at("train", queue={"name": "team"}, stages=GPU_TRAINING)
    cluster = operator.cluster
    cluster.wait(100)
    cluster.admitting = False
    cluster.evict(operator.live_jobs()[0])
    operator.rest()
    [attempt, *_] = operator.status["iterations"][1]["stages"][2]["attempts"]
    assert (attempt["gpus"], attempt["outcome"], attempt["activeSeconds"]) == (8, "Eviction", pytest.approx(100, abs=5))
    assert operator.status["gpuSeconds"] == {"train": 8 * attempt["activeSeconds"]}
    cluster.wait(1000)
    cluster.admitting = True
    cluster.script["train 1"] = []
    operator.edit(spec={"iterations": 6})
    operator.finish()
    assert "stages" not in operator.status["iterations"][1]
    # Six trainings of a few seconds more, and none of the thousand in the queue.
    assert 8 * attempt["activeSeconds"] < operator.status["gpuSeconds"]["train"] < 8 * (attempt["activeSeconds"] + 60)


def idle(operator: SimulatedOperator) -> None:
    for _ in range(3):
        operator.cluster.wait(60)
        operator.look()


def test_an_evaluation_without_a_win_rate_is_done_and_counted_once() -> None:
    stages = {"evaluate": {"template": {"resources": {"limits": {"nvidia.com/gpu": "8"}}}}}
    operator = SimulatedOperator(iterations=6, stages=stages)
    operator.cluster.win_rates = False
    operator.finish()
    assert operator.status["iterations"][1] == {
        "number": 1,
        "policy": operator.status["iterations"][1]["policy"],
        "stages": [{"stage": "evaluate", "state": "Succeeded"}],
    }
    counted, made = operator.status["gpuSeconds"], operator.cluster.work.copy()
    idle(operator)
    operator.cluster.wait(7 * 24 * 3600)  # the Jobs are removed
    idle(operator)
    operator.rest()
    assert operator.status["gpuSeconds"] == counted
    assert operator.cluster.work == made
    assert operator.status["phase"] == "Succeeded"


def test_a_suspended_run_requests_no_gpus() -> None:
    operator = held_at("generate", stages={"generate": GPU_TRAINING["train"]})
    operator.cluster.wait(50)
    operator.edit(spec={"suspend": True})
    operator.rest()
    operator.cluster.wait(5000)
    operator.edit(spec={"suspend": False})
    operator.steps(lambda: operator.at_work("generate"))
    [attempt] = operator.status["iterations"][1]["stages"][0]["attempts"]
    assert attempt["activeSeconds"] == pytest.approx(50, abs=10)
    assert "gpuSeconds" not in operator.status, "it goes on"


def test_a_deleted_run_is_left_to_the_garbage_collector() -> None:
    operator = held_at("generate")
    operator.cluster.remove(operator.cluster.at(operator.run), propagation="Foreground")
    calls = len(operator.cluster.calls)
    operator.rest()
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


def test_a_finished_run_has_nothing_to_suspend() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.finish()
    operator.edit(spec={"suspend": True})
    operator.rest(2)
    assert (operator.phase, operator.condition("Suspended")["status"]) == ("Succeeded", "False")


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
