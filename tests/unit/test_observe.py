"""What a Job and its pods say about an attempt, in the words of Kubernetes 1.34's Job controller and kubelet."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from cluster_objects import NOW, QUEUED_RUN, RUN, at, condition, exited, job, pod, run, workload
from sppo_operator.decide import Outcome, Stage, Step
from sppo_operator.jobs import job_manifest
from sppo_operator.objects import moment, one_line
from sppo_operator.observe import Observation, lingering, observe
from sppo_operator.policy import DISRUPTION_RULE, TERMINATED_RULE, USER_FAULT_RULE

RESULT = json.dumps({"metrics": {"rows": 3}, "contentDigest": "abc"})
SHARD = json.dumps({"metrics": {"worker": 1}})
ERROR = json.dumps({"error": "objective.beta is 0: raise it"})
COMPLETE = condition("Complete", "CompletionsReached", "Reached expected number of succeeded pods", since=100)
PREEMPTED = condition(
    "DisruptionTarget", "PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"
)
TAINTED = condition(
    "DisruptionTarget", "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", since=70
)
EVICTED = condition("Evicted", "Preempted", "Preempted to accommodate a higher prioritized Workload")
RESUMED = condition("Suspended", "JobResumed", "Job resumed", status="False", since=20)
FAR = timedelta(hours=1)


def by_exit_code(rule: int, name: str, code: int) -> dict[str, Any]:
    return condition("Failed", "PodFailurePolicy", f"Container stage for pod team/{name} failed with exit code {code} matching FailJob rule at index {rule}", since=100)  # fmt: skip


def by_disruption(name: str) -> dict[str, Any]:
    message = f"Pod team/{name} has condition DisruptionTarget matching FailJob rule at index {DISRUPTION_RULE}"
    return condition("Failed", "PodFailurePolicy", message, since=100)


def backoff(*, since: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both conditions of a Job whose worker failed: it is failing at once, and failed when its pods have ended."""
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    return condition("FailureTarget", reason, message, since=since), condition("Failed", reason, message, since=100)


TRAIN, GENERATE, EVALUATE = job(Stage.TRAIN), job(Stage.GENERATE), job(Stage.EVALUATE)
DEADLINE = condition("Failed", "DeadlineExceeded", "Job was active longer than specified deadline", since=100)
FAILED_INDEXES = condition("Failed", "FailedIndexes", "Job has failed indexes", since=100)
MAX_FAILED = condition("Failed", "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes", since=100)  # fmt: skip

# Of an ended Job: the Job, its pods, outcome, exit code, message, failures charged.
Ending = tuple[dict[str, Any], list[dict[str, Any]], Outcome, int | None, str, int]
ENDINGS: dict[str, Ending] = {
    "one worker is done": (
        job(Stage.EVALUATE, COMPLETE),
        [pod(EVALUATE, "e", "Succeeded", exited(0, RESULT))],
        Outcome.SUCCEEDED, 0, "", 1,
    ),
    "the result is with one of the shards": (
        job(Stage.GENERATE, COMPLETE),
        [pod(GENERATE, "g-0", "Succeeded", exited(0, SHARD)), pod(GENERATE, "g-1", "Succeeded", exited(0, RESULT))],
        Outcome.SUCCEEDED, 0, "", 1,
    ),
    "a success after a failed pod": (
        job(Stage.EVALUATE, COMPLETE),
        [pod(EVALUATE, "a", "Failed", exited(1, ERROR)), pod(EVALUATE, "b", "Succeeded", exited(0, RESULT))],
        Outcome.SUCCEEDED, 0, "", 1,
    ),
    "complete, and no pod has a result": (
        job(Stage.GENERATE, COMPLETE),
        [pod(GENERATE, "g-0", "Succeeded", exited(0, SHARD)), pod(GENERATE, "g-1", "Succeeded", exited(0, ""))],
        Outcome.FAILED, 0, "ended without a result of at most 4096 bytes: see kubectl logs g-0", 1,
    ),
    "complete, and the pod with the result was removed": (
        job(Stage.GENERATE, COMPLETE),
        [pod(GENERATE, "g-0", "Succeeded", exited(0, SHARD))],
        Outcome.VANISHED, None, "its pods were removed before the result was read: the next attempt finds what they finished", 1,
    ),
    "complete, and a failed pod is all that is left": (
        job(Stage.EVALUATE, COMPLETE),
        [pod(EVALUATE, "a", "Failed", exited(1, RESULT))],
        Outcome.VANISHED, None, "its pods were removed before the result was read: the next attempt finds what they finished", 1,
    ),
    "a user's fault": (
        job(Stage.GENERATE, by_exit_code(USER_FAULT_RULE, "g-1", 65)),
        [pod(GENERATE, "g-0", "Failed", exited(143)), pod(GENERATE, "g-1", "Failed", exited(65, ERROR))],
        Outcome.USER_FAULT, 65, "objective.beta is 0: raise it", 1,
    ),
    "a user's fault whose pod is gone": (
        job(Stage.GENERATE, by_exit_code(USER_FAULT_RULE, "g-1", 65)),
        [pod(GENERATE, "g-0", "Failed", exited(143))],
        Outcome.USER_FAULT, None, "Container stage for pod team/g-1 failed with exit code 65 matching FailJob rule at index 0", 1,
    ),
    "a preempted worker": (
        job(Stage.TRAIN, by_disruption("t-0")),
        [pod(TRAIN, "t-0", "Failed", exited(143), PREEMPTED), pod(TRAIN, "t-1", "Failed", exited(1, ERROR))],
        Outcome.DISRUPTED, 143, "pod t-0 was disrupted: default-scheduler: preempting to accommodate a higher priority pod", 1,
    ),
    "a worker that somebody deleted": (
        job(Stage.TRAIN, by_exit_code(TERMINATED_RULE, "t-0", 143)),
        [pod(TRAIN, "t-0", "Failed", exited(143), deleted=10)],
        Outcome.DISRUPTED, 143, "stopped by SIGTERM", 1,
    ),
    "a disrupted worker whose pod is gone": (
        job(Stage.TRAIN, by_disruption("t-0")),
        [],
        Outcome.DISRUPTED, None, "Pod team/t-0 has condition DisruptionTarget matching FailJob rule at index 1", 1,
    ),
    "a worker that crashed, and the other, which the Job controller stopped for it": (
        job(Stage.TRAIN, *backoff(since=50)),
        [pod(TRAIN, "t-0", "Failed", exited(143, at_second=51), deleted=50), pod(TRAIN, "t-1", "Failed", exited(1, ERROR, at_second=49))],
        Outcome.FAILED, 1, "objective.beta is 0: raise it", 1,
    ),
    "a worker that crashed after the other was done, whose node was then drained": (
        job(Stage.TRAIN, *backoff(since=50)),
        [pod(TRAIN, "t-0", "Succeeded", exited(0, RESULT, at_second=40), TAINTED), pod(TRAIN, "t-1", "Failed", exited(1, ERROR, at_second=49))],
        Outcome.FAILED, 1, "objective.beta is 0: raise it", 1,
    ),
    "a worker that crashed after the other was done and then lost its place": (
        job(Stage.TRAIN, *backoff(since=50)),
        [pod(TRAIN, "t-0", "Failed", exited(0, RESULT, at_second=40)), pod(TRAIN, "t-1", "Failed", exited(1, ERROR, at_second=49))],
        Outcome.FAILED, 1, "objective.beta is 0: raise it", 1,
    ),
    "of two workers that crashed, the first": (
        job(Stage.TRAIN, *backoff(since=50)),
        [pod(TRAIN, "t-0", "Failed", exited(1, "lost my peer", at_second=49)), pod(TRAIN, "t-1", "Failed", exited(1, ERROR, at_second=48))],
        Outcome.FAILED, 1, "objective.beta is 0: raise it", 1,
    ),
    "a worker that crashed because its peer was deleted": (
        job(Stage.TRAIN, *backoff(since=50)),
        [pod(TRAIN, "t-0", "Failed", exited(143, at_second=49), deleted=48), pod(TRAIN, "t-1", "Failed", exited(1, "lost my peer", at_second=49))],
        Outcome.DISRUPTED, 143, "stopped by SIGTERM", 1,
    ),
    "a worker that crashed because its peer was preempted within the same second": (
        job(Stage.TRAIN, *backoff(since=50)),
        [pod(TRAIN, "t-0", "Failed", exited(137, at_second=80), PREEMPTED, deleted=50), pod(TRAIN, "t-1", "Failed", exited(1, "lost my peer", at_second=50))],
        Outcome.DISRUPTED, 137, "pod t-0 was disrupted: default-scheduler: preempting to accommodate a higher priority pod", 1,
    ),
    "a preemption after the crash is no excuse": (
        job(Stage.TRAIN, *backoff(since=50)),
        [pod(TRAIN, "t-0", "Failed", exited(143, at_second=60), PREEMPTED, deleted=55), pod(TRAIN, "t-1", "Failed", exited(1, ERROR, at_second=49))],
        Outcome.FAILED, 1, "objective.beta is 0: raise it", 1,
    ),
    "a user's fault that took its peer down first": (
        job(Stage.TRAIN, *backoff(since=50)),
        [pod(TRAIN, "t-0", "Failed", exited(1, "lost my peer", at_second=49)), pod(TRAIN, "t-1", "Failed", exited(78, ERROR, at_second=50), PREEMPTED, deleted=50)],
        Outcome.USER_FAULT, 78, "objective.beta is 0: raise it", 1,
    ),
    "a worker that had too little memory": (
        job(Stage.TRAIN, *backoff(since=50)),
        [pod(TRAIN, "t-0", "Failed", exited(137, "step 7", reason="OOMKilled"))],
        Outcome.FAILED, 137, "killed for lack of memory: raise resources.limits.memory in spec.stages.train.template", 1,
    ),
    "a worker that was killed": (
        job(Stage.TRAIN, *backoff(since=50)),
        [pod(TRAIN, "t-0", "Failed", exited(137))],
        Outcome.FAILED, 137, "killed by signal 9, often for lack of memory: see kubectl logs t-0", 1,
    ),
    "a worker that left its log": (
        job(Stage.TRAIN, *backoff(since=50)),
        [pod(TRAIN, "t-0", "Failed", exited(1, "loading\nRuntimeError: out of luck\n"))],
        Outcome.FAILED, 1, "ended with exit code 1; the end of its log: loading | RuntimeError: out of luck", 1,
    ),
    "a worker whose node refused it": (
        job(Stage.TRAIN, *backoff(since=50)),
        [pod(TRAIN, "t-0", "Failed", None, reason="UnexpectedAdmissionError", message="Pod was rejected: Allocate failed due to no healthy devices present")],
        Outcome.DISRUPTED, None, "pod t-0 was refused by its node: Pod was rejected: Allocate failed due to no healthy devices present", 1,
    ),
    "a failure of which nothing is left": (
        job(Stage.TRAIN, *backoff(since=50)),
        [],
        Outcome.FAILED, None, "BackoffLimitExceeded: Job has reached the specified backoff limit", 1,
    ),
    "a rule that is not ours": (
        job(Stage.TRAIN, condition("Failed", "PodFailurePolicy", "Container stage for pod team/t-0 failed with exit code 1 matching FailJob rule at index 7")),
        [pod(TRAIN, "t-0", "Failed", exited(1, ERROR))],
        Outcome.FAILED, 1, "objective.beta is 0: raise it", 1,
    ),
    "a shard that used up the budget, charged whole": (
        job(Stage.GENERATE, FAILED_INDEXES, retries_left=2),
        [pod(GENERATE, "g-0-a", "Failed", exited(1, "an older failure", at_second=10)), pod(GENERATE, "g-0-b", "Failed", exited(1, ERROR, at_second=90)), pod(GENERATE, "g-1", "Succeeded", exited(0, SHARD))],
        Outcome.FAILED, 1, "objective.beta is 0: raise it", 3,
    ),
    "a shard's disruptions are no excuse: its pod was replaced": (
        job(Stage.GENERATE, MAX_FAILED, retries_left=0),
        [pod(GENERATE, "g-0-a", "Failed", exited(143), PREEMPTED), pod(GENERATE, "g-0-b", "Failed", exited(1, ERROR, at_second=90))],
        Outcome.FAILED, 1, "objective.beta is 0: raise it", 1,
    ),
    "a shard of which nothing is left": (
        job(Stage.GENERATE, FAILED_INDEXES, retries_left=2),
        [],
        Outcome.FAILED, None, "FailedIndexes: Job has failed indexes", 3,
    ),
    "too long": (
        job(Stage.TRAIN, DEADLINE),
        [pod(TRAIN, "t-0", "Failed", exited(143), deleted=99)],
        Outcome.FAILED, None, "stopped after spec.stages.train.deadlineSeconds 3600: raise it or remove it", 1,
    ),
    "suspended by the user": (
        job(Stage.TRAIN, by_exit_code(TERMINATED_RULE, "t-0", 143), suspend=True),
        [pod(TRAIN, "t-0", "Failed", exited(143), deleted=10)],
        Outcome.SUSPENDED, 143, "stopped by spec.suspend", 1,
    ),
    "a crash at the time of a suspension is a crash": (
        job(Stage.TRAIN, *backoff(since=50), suspend=True),
        [pod(TRAIN, "t-0", "Failed", exited(1, ERROR))],
        Outcome.FAILED, 1, "objective.beta is 0: raise it", 1,
    ),
    "suspended by its queue": (
        job(Stage.TRAIN, by_exit_code(TERMINATED_RULE, "t-0", 143), of=QUEUED_RUN, suspend=True),
        [pod(TRAIN, "t-0", "Failed", exited(143), deleted=10)],
        Outcome.EVICTED, 143, "evicted by Kueue", 1,
    ),
    "resumed before the Job controller saw its pod end": (
        job(Stage.TRAIN, by_exit_code(TERMINATED_RULE, "t-0", 143), condition("Suspended", "JobSuspended")),
        [pod(TRAIN, "t-0", "Failed", exited(143), deleted=10)],
        Outcome.SUSPENDED, 143, "stopped by spec.suspend", 1,
    ),
    "resumed while its pod ended": (
        job(Stage.TRAIN, by_exit_code(TERMINATED_RULE, "t-0", 143), RESUMED),
        [pod(TRAIN, "t-0", "Failed", exited(143), deleted=10)],
        Outcome.SUSPENDED, 143, "stopped by spec.suspend", 1,
    ),
    "admitted again while its pod ended": (
        job(Stage.TRAIN, by_exit_code(TERMINATED_RULE, "t-0", 143), RESUMED, of=QUEUED_RUN),
        [pod(TRAIN, "t-0", "Failed", exited(143), deleted=10)],
        Outcome.EVICTED, 143, "evicted by Kueue", 1,
    ),
    "its pod was deleted after it was admitted": (
        job(Stage.TRAIN, by_exit_code(TERMINATED_RULE, "t-0", 143), RESUMED, of=QUEUED_RUN),
        [pod(TRAIN, "t-0", "Failed", exited(143), deleted=21)],
        Outcome.DISRUPTED, 143, "stopped by SIGTERM", 1,
    ),
    "disrupted while it was admitted to its queue": (
        job(Stage.TRAIN, by_disruption("t-0"), of=QUEUED_RUN),
        [pod(TRAIN, "t-0", "Failed", exited(143), PREEMPTED)],
        Outcome.DISRUPTED, 143, "pod t-0 was disrupted: default-scheduler: preempting to accommodate a higher priority pod", 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("it", "pods", "outcome", "code", "message", "failures"), ENDINGS.values(), ids=ENDINGS)
def test_the_end_of_a_job(
    it: dict[str, Any], pods: list[dict[str, Any]], outcome: Outcome, code: int | None, message: str, failures: int
) -> None:
    seen = observe(it, pods, now=NOW + FAR)
    assert seen.end is not None
    assert (seen.end.outcome, seen.end.exit_code, seen.end.message, seen.end.failures) == (
        outcome,
        code,
        message,
        failures,
    )
    assert observe(it, pods[::-1], now=NOW + FAR) == seen, "the order of the pods says nothing"
    assert not seen.lost


def test_an_end_has_its_result_and_its_time() -> None:
    (it, pods, *_) = ENDINGS["one worker is done"]
    seen = observe(it, pods, now=NOW + FAR)
    assert seen.end is not None
    assert (seen.end.metrics, seen.end.content_digest, seen.finished) == ({"rows": 3}, "abc", at(100))


@pytest.mark.parametrize("again", [False, True], ids=["out of its place", "admitted again since"])
def test_an_eviction_is_told_by_the_workload(again: bool) -> None:
    it = job(Stage.TRAIN, by_exit_code(TERMINATED_RULE, "t-0", 143), RESUMED, of=QUEUED_RUN)
    before = {"status": "False", "message": f"Previously: {EVICTED['message']}", "reason": "QuotaReserved"}
    shown = workload(
        EVICTED | before if again else EVICTED, schedulingStats={"evictions": [{"reason": "Preempted", "count": 1}]}
    )
    seen = observe(it, [pod(it, "t-0", "Failed", exited(143), deleted=10)], now=NOW, workload=shown)
    assert seen.end is not None
    assert (seen.end.outcome, seen.evictions) == (Outcome.EVICTED, 1)
    assert seen.end.message == "evicted by Kueue: Preempted to accommodate a higher prioritized Workload"


def test_a_job_says_which_attempt_it_is() -> None:
    seen = observe(job(Stage.SCORE, iteration=3, attempt=2, created=5), [], now=NOW)
    assert seen == Observation(
        generation=1,
        job="demo-i3-score-a2",
        uid="uid-of-demo-i3-score-a2",
        step=Step(3, Stage.SCORE),
        attempt=2,
        image="trainer:1",
        created=at(5),
        look_again_seconds=65.0,
    )


@pytest.mark.parametrize(
    ("it", "active_since", "paused_at"),
    [
        (job(), None, None),
        (job(startTime=at(5)), at(5), None),
        (job(Stage.TRAIN, condition("Suspended", since=7), suspend=True, startTime=at(5)), None, at(7)),
        (job(Stage.TRAIN, suspend=True, startTime=at(5)), at(5), None),
        (job(Stage.TRAIN, condition("Suspended", since=7), startTime=at(5)), None, at(7)),
        (job(Stage.TRAIN, RESUMED, startTime=at(20)), at(20), None),
        (job(Stage.TRAIN, COMPLETE, startTime=at(5)), at(5), None),
    ],
    ids=["new", "at work", "stopped", "about to be stopped", "about to be resumed", "resumed", "ended"],
)
def test_when_pods_may_run(it: dict[str, Any], active_since: str | None, paused_at: str | None) -> None:
    seen = observe(it, [], now=NOW)
    assert (seen.active_since, seen.paused_at) == (active_since, paused_at)


NO_GPUS = (
    "nvidia.com/gpumem", "nvidia.com/gpucores", "nvidia.com/gpumem-percentage", "volcano.sh/gpu-memory", "volcano.sh/gpu-number",
    "aliyun.com/gpu-mem", "gpu.intel.com/millicores", "gpu.intel.com/memory.max", "gpu.intel.com/i915_monitoring",
    "example.com/gpu-seats", "example.com/fpga", "gpus.example.com/x", "nvidia.com/mig-manager",
)  # fmt: skip


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [
        ({}, 0),
        ({"limits": {"cpu": "8", "memory": "64Gi", "ephemeral-storage": "1Gi"}}, 0),
        ({"limits": {"nvidia.com/gpu": "8"}}, 16),
        ({"limits": {"nvidia.com/gpu": 4}, "requests": {"nvidia.com/gpu": 4, "cpu": 1}}, 8),
        ({"requests": {"amd.com/gpu": "1"}}, 2),
        ({"limits": {"nvidia.com/mig-1g.10gb": "2", "nvidia.com/gpu.shared": "1"}}, 6),
        ({"limits": {"gpu.intel.com/i915": "1"}}, 2),
        ({"limits": {"gpu.intel.com/xe": "1", "nvidia.com/mig-1g.10gb.me": "1", "nvidia.com/mig-7g.80gb.shared": "1"}}, 6),
        ({"limits": dict.fromkeys(NO_GPUS, "9")}, 0),
        ({"limits": {"nvidia.com/gpu": "1k"}}, 2000),
        ({"limits": {"nvidia.com/gpu": "500m"}}, 0),
        ({"limits": {"nvidia.com/gpu": "9E"}}, 1_000_000),
        ({"limits": None, "requests": None}, 0),
    ],
    ids=["nothing", "none", "eight a pod", "number", "request", "parts", "intel", "more parts", "no GPUs", "thousands", "no whole number", "absurd", "null"],
)  # fmt: skip
def test_gpus_of_both_workers_of_a_training(resources: dict[str, Any], gpus: int) -> None:
    it = job(Stage.TRAIN, of=run(stages={"train": {"workers": 2, "template": {"resources": {}}}}))
    it["spec"]["template"]["spec"]["containers"][0]["resources"] = resources
    assert observe(it, [], now=NOW).gpus == gpus


@pytest.mark.parametrize("stage", list(Stage))
def test_every_job_that_is_made_is_understood(stage: Stage) -> None:
    step = Step(0 if stage is Stage.PREPARE else 2, stage)
    made = job_manifest(RUN, "run-uid", step, 7, image="trainer:2", retries_left=1)
    created = made | {"metadata": made["metadata"] | {"uid": "u", "creationTimestamp": at(0)}}
    seen = observe(created, (), now=NOW)
    assert (seen.step, seen.attempt, seen.image, seen.end) == (step, 7, "trainer:2", None)


LIVE = {
    "its pods run": (TRAIN, [pod(TRAIN, "t-0", "Running", {"running": {}})]),
    "it fails, and a pod has not ended": (
        job(Stage.TRAIN, backoff(since=50)[0]),
        [pod(TRAIN, "t-0", "Running", {"running": {}}, deleted=50), pod(TRAIN, "t-1", "Failed", exited(1))],
    ),
    "it fails, and its last pod has just ended": (
        job(Stage.TRAIN, backoff(since=50)[0]),
        [pod(TRAIN, "t-0", "Failed", exited(143), deleted=50)],
    ),
    "all indexes are done, and the verdict is to come": (
        job(Stage.EVALUATE, condition("SuccessCriteriaMet", "CompletionsReached")),
        [pod(EVALUATE, "e", "Succeeded", exited(0, RESULT))],
    ),
    "a shard waits for its next try": (GENERATE, [pod(GENERATE, "g-0", "Failed", exited(1, ERROR))]),
    "it is suspended": (job(Stage.TRAIN, suspend=True), []),
    "it is over and being deleted": (job(Stage.EVALUATE, COMPLETE, going=True), [pod(EVALUATE, "e", "Succeeded", exited(0, RESULT))]),
}  # fmt: skip


@pytest.mark.parametrize(("it", "pods"), LIVE.values(), ids=LIVE)
def test_no_end_before_the_verdict(it: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    seen = observe(it, pods, now=NOW + timedelta(seconds=100))
    assert (seen.end, seen.finished, seen.stuck) == (None, "", "")
    assert seen.going == ("deletionTimestamp" in it["metadata"])


def test_a_pod_of_an_earlier_job_of_the_same_name_is_not_asked() -> None:
    earlier = job(Stage.EVALUATE)
    earlier["metadata"]["uid"] = "of a run that was deleted and made again"
    seen = observe(job(Stage.EVALUATE, COMPLETE), [pod(earlier, "e", "Succeeded", exited(0, RESULT))], now=NOW)
    assert seen.end is not None
    assert seen.end.outcome is Outcome.VANISHED


def test_only_the_container_of_the_stage_counts() -> None:
    mesh = pod(EVALUATE, "e", "Succeeded", exited(0, RESULT))
    mesh["status"]["containerStatuses"].insert(0, {"name": "proxy", "state": exited(0, "bye")})
    seen = observe(job(Stage.EVALUATE, COMPLETE), [mesh], now=NOW)
    assert seen.end is not None
    assert seen.end.outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("text", "line"),
    [("a\n  b.", "a b"), ("x" * 10, "x" * 10), ("x" * 11, "x" * 8 + " …")],
    ids=["one line without its full stop", "just short enough", "cut"],
)
def test_what_others_say_becomes_a_part_of_a_sentence(text: str, line: str) -> None:
    assert one_line(text, 10) == line


# Lost nodes: the deletion of t-0 was asked for at second 70, its grace ends at 100, and a minute later it is lost.

LOST_POD = pod(TRAIN, "t-0", "Running", {"running": {}}, TAINTED, deleted=70)


@pytest.mark.parametrize(("second", "left"), [(100, 60.0), (159, 1.0), (160, None)])
def test_an_attempt_is_over_a_minute_after_the_grace_of_its_last_pod(second: float, left: float | None) -> None:
    seen = observe(TRAIN, [LOST_POD, pod(TRAIN, "t-1", "Failed", exited(1))], now=NOW + timedelta(seconds=second))
    assert seen.look_again_seconds == left
    assert seen.lost == (left is None)
    if seen.lost:
        assert seen.end is not None
        assert (seen.end.outcome, seen.end.message) == (Outcome.DISRUPTED, "pod t-0 was lost with its node: node-1")
        assert seen.finished == at(160)


def test_a_lost_node_explains_why_the_others_failed() -> None:
    failing = job(Stage.TRAIN, backoff(since=120)[0])
    pods = [LOST_POD, pod(TRAIN, "t-1", "Failed", exited(1, "lost my peer", at_second=119))]
    seen = observe(failing, pods, now=NOW + FAR)
    assert seen.lost
    assert seen.end is not None
    assert seen.end.message == "pod t-0 was disrupted: Taint manager: deleting due to NoExecute taint"


@pytest.mark.parametrize(
    ("deleted", "outcome", "message"),
    [
        (70, Outcome.DISRUPTED, "pod t-0 was deleted, and its node does not answer"),
        (120, Outcome.FAILED, "objective.beta is 0: raise it"),
    ],
    ids=["before the other failed", "because the other failed"],
)
def test_a_pod_that_was_deleted_on_a_lost_node(deleted: float, outcome: Outcome, message: str) -> None:
    failing = job(Stage.TRAIN, backoff(since=120)[0])
    silent = pod(TRAIN, "t-0", "Running", {"running": {}}, deleted=deleted)
    seen = observe(failing, [silent, pod(TRAIN, "t-1", "Failed", exited(1, ERROR, at_second=119))], now=NOW + FAR)
    assert seen.end is not None
    assert (seen.end.outcome, seen.end.message, seen.lost) == (outcome, message, True)


def test_a_lost_pod_is_awaited_while_another_runs() -> None:
    seen = observe(TRAIN, [LOST_POD, pod(TRAIN, "t-1", "Running", {"running": {}})], now=NOW + FAR)
    assert (seen.end, seen.lost, seen.look_again_seconds) == (None, False, None)


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ([], False),
        ([pod(TRAIN, "t-0", "Running")], True),
        ([pod(TRAIN, "t-0", "Pending")], True),
        ([pod(TRAIN, "t-0", "Succeeded"), pod(TRAIN, "t-1", "Failed")], False),
        ([pod(TRAIN, "t-0", "Running", deleted=11)], True),
        ([pod(TRAIN, "t-0", "Running", deleted=10)], False),
        ([pod(GENERATE, "g-0", "Running")], False),
    ],
    ids=["none", "running", "not started", "over", "within its grace and a minute", "lost", "another Job's"],
)
def test_lingering(pods: list[dict[str, Any]], expected: bool) -> None:
    assert lingering(pods, "demo-i1-train-a1", NOW + timedelta(seconds=100)) is expected


# Queues

PENDING = condition("QuotaReserved", "Pending", "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor default, 1 more needed.", status="False")  # fmt: skip
RESERVED = condition("QuotaReserved", "QuotaReserved", "Quota reserved in ClusterQueue research")
WAITING = {
    "no Workload": (None, "queue gpus has no Workload for it yet: if this lasts, check that Kueue is installed and manages Jobs in this namespace, that spec.queue.priorityClass exists, and that the operator may list workloads.kueue.x-k8s.io"),
    "not looked at": (workload(), "queue gpus has not looked at it yet"),
    "no room": (workload(PENDING), "queue gpus: couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor default, 1 more needed"),
    "no such queue": (
        workload(condition("QuotaReserved", "Inadmissible", "LocalQueue gpus doesn't exist", status="False")),
        "queue gpus: LocalQueue gpus doesn't exist: mend that, or change spec.queue.name",
    ),
    "its place was taken, and it still ends": (workload(RESERVED, EVICTED), "queue gpus took its place, and its pods are ending (Preempted to accommodate a higher prioritized Workload)"),
    "checks are pending": (
        workload(RESERVED, admissionChecks=[{"name": "provisioning", "state": "Pending"}, {"name": "budget", "state": "Ready"}]),
        "queue gpus has room for it, and admission checks are pending: provisioning",
    ),
    "deactivated": (workload(condition("Evicted", "Deactivated", "The workload is deactivated"), active=False), "its Workload job-demo-a1b2c is deactivated (The workload is deactivated): set its spec.active to true"),
    "deactivated before it ever ran": (workload(active=False), "its Workload job-demo-a1b2c is deactivated (no reason given): set its spec.active to true"),
    "could not start": (workload(condition("Finished", "FailedToStart", "invalid node selector")), "Kueue could not start it (invalid node selector): delete the Job, and another one is made"),
}  # fmt: skip


@pytest.mark.parametrize(("kueue", "why"), WAITING.values(), ids=WAITING)
def test_why_a_queued_job_waits(kueue: dict[str, Any] | None, why: str) -> None:
    seen = observe(job(Stage.TRAIN, of=QUEUED_RUN, suspend=True), [], now=NOW + FAR, workload=kueue)
    assert (seen.waiting, seen.stuck, seen.end) == (why, "", None)
    assert (seen.queue, seen.suspended) == ("gpus", True)


def test_an_admitted_job_waits_for_nothing() -> None:
    seen = observe(job(Stage.TRAIN, of=QUEUED_RUN), [], now=NOW, workload=workload(RESERVED))
    assert (seen.waiting, seen.queue, seen.suspended) == ("", "gpus", False)


@pytest.mark.parametrize(
    ("kueue", "evictions"),
    [
        (None, 0),
        (workload(RESERVED), 0),
        (workload(EVICTED), 1),
        (workload(condition("Evicted", "QuotaReserved", "Previously: ...", status="False")), 0),
        (workload(requeueState={"count": 3}), 3),
        (workload(EVICTED, schedulingStats={"evictions": [{"reason": "Preempted", "underlyingCause": "", "count": 2}, {"reason": "PodsReadyTimeout", "underlyingCause": "", "count": 5}]}), 7),
    ],
    ids=["no Workload", "never", "now", "before, and admitted again", "put back into the queue", "counted by Kueue"],
)  # fmt: skip
def test_evictions(kueue: dict[str, Any] | None, evictions: int) -> None:
    assert observe(job(Stage.GENERATE, of=QUEUED_RUN), [], now=NOW, workload=kueue).evictions == evictions


# Of a shard whose pod was deleted and has ended: seconds since the end of its grace period, unreplaced, look again in.
KEPT = {
    "just now": (0, False, 10.0),
    "the Job controller is busy": (9, False, 1.0),
    "nobody makes another one": (10, True, None),
}


@pytest.mark.parametrize(("seconds", "unreplaced", "again"), KEPT.values(), ids=KEPT)
def test_a_deleted_pod_that_is_not_replaced_shows_after_a_while(
    seconds: float, unreplaced: bool, again: float | None
) -> None:
    shard = pod(GENERATE, "g-0", "Failed", exited(143), deleted=-30)
    shard["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
    seen = observe(GENERATE, [shard], now=moment(at(seconds)))
    assert (seen.end, seen.unreplaced, seen.look_again_seconds) == (None, unreplaced, again)


def test_a_deleted_pod_that_was_replaced_is_no_trouble() -> None:
    old, new = pod(GENERATE, "g-0", "Failed", exited(143), deleted=-30), pod(GENERATE, "g-1", "Running")
    assert not observe(GENERATE, [old, new], now=moment(at(100))).unreplaced
