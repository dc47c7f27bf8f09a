"""Runs as resources with a status, from the smallest to the largest that the CRD allows."""

from __future__ import annotations

from typing import Any

from cluster_objects import SPEC
from sppo_operator.validation import admit

Object = dict[str, Any]
AN_HOUR_AGO, HALF_AN_HOUR_AGO = "2026-01-31T12:00:00Z", "2026-01-31T12:30:00Z"
STAGES = ("prepare", "generate", "score", "train", "evaluate")
MOST_SERIES = 498
"""Of one run in Prometheus; docs/metrics.md says so."""


def resource(name: str = "demo", namespace: str = "lab", **status: Any) -> Object:
    """A run that was created an hour ago, with this status."""
    metadata = {"name": name, "namespace": namespace}
    run = admit({"apiVersion": "sppo.dev/v1alpha1", "kind": "SPPORun", "metadata": metadata, "spec": SPEC})
    run["metadata"] |= {"uid": f"uid-of-{name}", "creationTimestamp": AN_HOUR_AGO}
    return run | ({"status": status} if status else {})


def at(number: int, *stages: Object, **more: Any) -> Object:
    return {"number": number, "stages": list(stages), **more}


def attempt(number: int = 1, outcome: str = "Succeeded", **more: Any) -> Object:
    return {"number": number, "outcome": outcome, "startTime": AN_HOUR_AGO, **more}


def largest() -> Object:
    """The resource with the most series that the CRD lets be."""
    figures = {f"figure{number}": "1" for number in range(7)} | {"tokensPerSecond": "1"}
    progress = {"done": 1, "total": 2, "unit": "steps", "secondsLeft": 3, "figures": figures}
    attempts = [attempt(number, "Running", gpus=8, activeSince=AN_HOUR_AGO, activeSeconds=0) for number in range(1, 5)]
    metrics = {f"metric{number}": "1" for number in range(32)}
    times = {"startTime": AN_HOUR_AGO, "finishTime": HALF_AN_HOUR_AGO}
    stages = [
        {
            "stage": stage,
            "state": "Running",
            "attempts": attempts,
            "charged": 1,
            "progress": progress,
            "metrics": metrics,
        }
        | times
        for stage in STAGES
    ]
    rate = {"mean": "0.5", "low": "0.4", "high": "0.6"}
    rates = dict.fromkeys(("base", "previous", "secondBase", "secondPrevious"), rate)
    return resource(
        "x" * 38,
        "n" * 63,
        phase="Training",
        image="i" * 256,
        conditions=[
            {"type": f"Kind{letter}", "status": "True", "reason": "Reason", "message": "", "lastTransitionTime": AN_HOUR_AGO}
            for letter in "ABCDEFGH"
        ],
        iterations=[{"number": number, "winRate": rates, "stages": stages} for number in range(101)],
        bestIteration=1,
        failures=dict.fromkeys(("user", "application", "disruption", "eviction"), 1),
        gpuSeconds=dict.fromkeys(STAGES, 1),
        **times,
    )  # fmt: skip
