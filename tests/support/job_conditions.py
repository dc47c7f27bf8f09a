"""What Kubernetes 1.34's Job controller, the kubelet and Kueue say in the conditions of Jobs, pods and Workloads."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from cluster_objects import condition, job
from sppo_operator.decide import Stage
from sppo_operator.policy import DISRUPTION_RULE

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
TRAIN, GENERATE, EVALUATE = job(Stage.TRAIN), job(Stage.GENERATE), job(Stage.EVALUATE)


def by_exit_code(rule: int, name: str, code: int) -> dict[str, Any]:
    return condition("Failed", "PodFailurePolicy", f"Container stage for pod team/{name} failed with exit code {code} matching FailJob rule at index {rule}", since=100)  # fmt: skip


def by_disruption(name: str) -> dict[str, Any]:
    message = f"Pod team/{name} has condition DisruptionTarget matching FailJob rule at index {DISRUPTION_RULE}"
    return condition("Failed", "PodFailurePolicy", message, since=100)


def backoff(*, since: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both conditions of a Job whose worker failed: it is failing at once, and failed when its pods have ended."""
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    return condition("FailureTarget", reason, message, since=since), condition("Failed", reason, message, since=100)
