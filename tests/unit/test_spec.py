"""Identity: which changes make another run, and what things are called."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from sppo_operator.decide import Stage, Step
from sppo_operator.spec import Run
from sppo_operator.validation import admit

MANIFEST = yaml.safe_load("""
apiVersion: sppo.dev/v1alpha1
kind: SPPORun
metadata: {name: demo, namespace: lab}
spec:
  model: {source: models/base}
  prompts: {source: prompts.jsonl, perIteration: 10, heldOut: 8}
  preference: {kind: PairRM, pairRM: {model: {source: models/pairrm}}}
  objective: {beta: '0.05'}
  training: {learningRate: '0.000005'}
  workspace: {claimName: models}
""")


def digest(change: Callable[[dict[str, Any]], object] = lambda spec: None) -> str:
    manifest = copy.deepcopy(MANIFEST)
    change(manifest["spec"])
    return Run.of(admit(manifest)).digest()


SAME = {
    "iterations": lambda spec: spec.update(iterations=7),
    "suspend": lambda spec: spec.update(suspend=True),
    "image": lambda spec: spec.update(image="trainer:2"),
    "retries": lambda spec: spec.update(retries={"limit": 9}),
    "queue": lambda spec: spec.update(queue={"name": "team"}),
    "workspace": lambda spec: spec.update(workspace={"claimName": "other"}),
    "workers": lambda spec: spec.update(stages={"generate": {"workers": 4}}),
    "secret": lambda spec: spec["model"].update(tokenSecret={"name": "hub", "key": "token"}),
    "checkpoints": lambda spec: spec["training"].update(checkpointMinutes=1),
    "parallel": lambda spec: spec.update(evaluation={"parallel": False}),
    "order": lambda spec: spec.update(evaluation={"against": ["Previous", "Base"]}),
    "default": lambda spec: spec.update(seed=0),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_leaves_the_run_the_same(change: Callable[[dict[str, Any]], object]) -> None:
    assert digest(change) == digest()


OTHER = {
    "seed": lambda spec: spec.update(seed=1),
    "model": lambda spec: spec["model"].update(source="models/other"),
    "prompts": lambda spec: spec["prompts"].update(heldOut=9),
    "preference": lambda spec: spec["preference"]["pairRM"].update(temperature="2"),
    "objective": lambda spec: spec["objective"].update(beta="0.1"),
    "generation": lambda spec: spec.update(generation={"samples": 4}),
    "training": lambda spec: spec["training"].update(batchSize=4),
    "samples": lambda spec: spec.update(evaluation={"samples": 2}),
    "against": lambda spec: spec.update(evaluation={"against": ["Base"]}),
    "groups": lambda spec: spec.update(evaluation={"groupColumn": "thing"}),
}


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_what_makes_another_run(change: Callable[[dict[str, Any]], object]) -> None:
    assert digest(change) != digest()


def test_what_only_a_cluster_heeds_is_named() -> None:
    assert Run.of(admit(MANIFEST)).cluster_fields() == []
    manifest = copy.deepcopy(MANIFEST)
    stages = {"prepare": {"template": {}}, "score": {"workers": 2}, "train": {"workers": 1, "processesPerWorker": 8}}
    manifest["spec"] |= {"image": "i", "queue": {"name": "q"}, "workspace": {"uri": "s3://b"}, "stages": stages}
    assert sorted(Run.of(admit(manifest)).cluster_fields()) == [
        "spec.image",
        "spec.queue",
        "spec.stages.prepare.template",
        "spec.stages.score.workers",
        "spec.stages.train.processesPerWorker",
        "spec.workspace.uri",
    ]


def test_names_are_addresses() -> None:
    run = Run.of(admit(MANIFEST))
    assert run.job_name(Step(2, Stage.TRAIN), 3) == "demo-i2-train-a3"
    assert len(Run.of(MANIFEST | {"metadata": {"name": "n" * 38}}).job_name(Step(100, Stage.EVALUATE), 1_000_000)) <= 63
