"""What a queue says of a Job: why it waits, and that it was evicted."""

from __future__ import annotations

from typing import Any

import pytest
from cluster_objects import NOW, QUEUED_RUN, condition, exited, job, pod, workload
from job_conditions import EVICTED, FAR, RESUMED, by_exit_code
from sppo_operator.decide import Outcome, Stage
from sppo_operator.observe import observe
from sppo_operator.policy import TERMINATED_RULE

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
