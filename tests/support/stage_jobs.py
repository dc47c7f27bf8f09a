"""The Jobs of a small run, with a change to its spec."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import yaml
from sppo_operator.decide import Stage, Step
from sppo_operator.jobs import job_manifest
from sppo_operator.spec import Run
from sppo_operator.validation import admit

RESOURCE = admit(
    yaml.safe_load("""
apiVersion: sppo.dev/v1alpha1
kind: SPPORun
metadata: {name: demo, namespace: lab}
spec:
  model: {source: models/base}
  prompts: {source: prompts.jsonl, perIteration: 10, heldOut: 8}
  preference: {kind: Verifier, verifier: {rules: [{kind: Regex, pattern: '^A$'}]}}
  objective: {beta: '0.05'}
  training: {learningRate: '0.000005'}
  workspace: {claimName: models}
""")
)
Change = Callable[[dict[str, Any]], object]


def run(change: Change = lambda spec: None) -> Run:
    resource = copy.deepcopy(RESOURCE)
    change(resource["spec"])
    return Run.of(resource)


def job(stage: Stage, change: Change = lambda spec: None, *, retries_left: int = 3) -> dict[str, Any]:
    step = Step(0 if stage is Stage.PREPARE else 1, stage)
    return job_manifest(run(change), "0815", step, 2, image="trainer:1", retries_left=retries_left)


def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def env(manifest: dict[str, Any]) -> dict[str, Any]:
    """Each variable's value, or where it comes from; no name twice."""
    variables = pod(manifest)["containers"][0]["env"]
    values = {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in variables}
    assert len(values) == len(variables)
    return values


def with_template(stage: Stage, **template: Any) -> Change:
    return lambda spec: spec["stages"][stage.value].update(template=template)
