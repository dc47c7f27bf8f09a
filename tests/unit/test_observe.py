"""How an attempt ends, from a Job and its pods, in the words of Kubernetes 1.34's Job controller and kubelet."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cluster_objects import NOW, QUEUED_RUN, at, condition, exited, job, pod
from job_conditions import (
    COMPLETE,
    ERROR,
    EVALUATE,
    FAR,
    GENERATE,
    PREEMPTED,
    RESULT,
    RESUMED,
    SHARD,
    TAINTED,
    TRAIN,
    backoff,
    by_disruption,
    by_exit_code,
)
from sppo_operator.decide import Outcome, Stage
from sppo_operator.objects import one_line
from sppo_operator.observe import observe
from sppo_operator.policy import TERMINATED_RULE, USER_FAULT_RULE

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
