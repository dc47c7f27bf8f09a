"""Jobs, pods and Workloads as an API server would send them, with no more fields than somebody reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sppo_operator.decide import Stage, Step
from sppo_operator.jobs import job_manifest
from sppo_operator.spec import Run
from sppo_operator.validation import admit

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
SPEC: dict[str, Any] = {
    "model": {"source": "models/base"},
    "prompts": {"source": "prompts.jsonl", "perIteration": 10, "heldOut": 8},
    "preference": {"kind": "PairRM", "pairRM": {"model": {"source": "models/pairrm"}}},
    "objective": {"beta": "0.05"},
    "training": {"learningRate": "0.000005"},
    "generation": {"maxTokens": 16},
    "workspace": {"claimName": "models"},
}


def at(seconds: float) -> str:
    """So many seconds after NOW, as the API server writes times."""
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def run(**spec: Any) -> Run:
    metadata = {"name": "demo", "namespace": "team"}
    manifest = {"apiVersion": "sppo.dev/v1alpha1", "kind": "SPPORun", "metadata": metadata, "spec": SPEC | spec}
    return Run.of(admit(manifest))


RUN = run(stages={"generate": {"workers": 2}, "train": {"workers": 2, "deadlineSeconds": 3600}})
QUEUED_RUN = run(stages={"generate": {"workers": 2}, "train": {"workers": 2}}, queue={"name": "gpus"})


def job(
    stage: Stage = Stage.TRAIN,
    *conditions: dict[str, Any],
    iteration: int = 1,
    attempt: int = 1,
    of: Run = RUN,
    created: float = 0.0,
    retries_left: int = 3,
    suspend: bool = False,
    going: bool = False,
    **status: Any,
) -> dict[str, Any]:
    """The operator's own Job, `created` seconds after NOW, with a uid and a status."""
    step = Step(0 if stage is Stage.PREPARE else iteration, stage)
    made = job_manifest(of, "run-uid", step, attempt, image="trainer:1", retries_left=retries_left)
    name = made["metadata"]["name"]
    added = {"uid": f"uid-of-{name}", "creationTimestamp": at(created)}
    metadata = made["metadata"] | added | ({"deletionTimestamp": at(created)} if going else {})
    return made | {
        "metadata": metadata,
        "spec": made["spec"] | {"suspend": suspend},
        "status": {"conditions": list(conditions), **status},
    }


def condition(
    kind: str, reason: str = "", message: str = "", *, status: str = "True", since: float = 0.0
) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(since)}


def pod(
    owner: dict[str, Any],
    name: str,
    phase: str,
    state: dict[str, Any] | None = None,
    *conditions: dict[str, Any],
    deleted: float | None = None,
    **status: Any,
) -> dict[str, Any]:
    """A pod of the Job; `deleted` says when its deletion was asked for, with 30 s of grace."""
    labels = {
        "batch.kubernetes.io/job-name": owner["metadata"]["name"],
        "batch.kubernetes.io/controller-uid": owner["metadata"]["uid"],
    }
    metadata: dict[str, Any] = {"name": name, "labels": labels, "creationTimestamp": at(0)}
    if deleted is not None:
        metadata |= {"deletionTimestamp": at(deleted + 30), "deletionGracePeriodSeconds": 30}
    containers = [] if state is None else [{"name": "stage", "state": state}]
    return {
        "metadata": metadata,
        "spec": {"nodeName": "node-1"},
        "status": {"phase": phase, "conditions": list(conditions), "containerStatuses": containers, **status},
    }


def exited(code: int, message: str = "", *, at_second: float = 0.0, reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "finishedAt": at(at_second), "reason": reason}}


def workload(*conditions: dict[str, Any], active: bool = True, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "job-demo-a1b2c"},
        "spec": {"active": active},
        "status": {"conditions": list(conditions), **status},
    }
