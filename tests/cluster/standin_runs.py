"""Runs of the stand-in trainer, which takes a tenth of a second per stage."""

from __future__ import annotations

from typing import Any

from lab import Object
from manifest_table import merged

STEPS = ["prepare", "evaluate 0", "generate 1", "score 1", "train 1", "evaluate 1"]
"""Those of one iteration, in the order of the schedule."""
MANIFEST: Object = {
    "apiVersion": "sppo.dev/v1alpha1",
    "kind": "SPPORun",
    "metadata": {"name": "demo"},
    "spec": {
        "iterations": 1,
        "model": {"source": "models/base"},
        "prompts": {"source": "prompts.jsonl", "perIteration": 10, "heldOut": 8},
        "preference": {"kind": "Verifier", "verifier": {"rules": [{"kind": "Finished"}]}},
        "objective": {"beta": "0.05"},
        "training": {"learningRate": "5e-6"},
        "workspace": {"claimName": "workspace"},
        "retries": {"limit": 1},
    },
}


def standin(name: str = "demo", **spec: Any) -> Object:
    """A manifest whose spec has been changed, as by a merge patch."""
    manifest: Object = merged(MANIFEST, {"metadata": {"name": name}, "spec": spec})
    return manifest


def failing(*faults: str) -> Object:
    """`spec.stages` whose pods have these faults of the stand-in, such as "train:1:crash:times=2"."""
    stages = {fault.partition(":")[0] for fault in faults}
    return {
        stage: {
            "template": {
                "env": [
                    {"name": "STANDIN_FAIL", "value": " ".join(fault for fault in faults if fault.startswith(stage))}
                ]
            }
        }
        for stage in sorted(stages)
    }
