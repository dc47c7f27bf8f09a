"""Pods that cannot start are explained within 90 seconds, and the run goes on when the explanation was heeded."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest
from lab import Lab, Object, condition
from namespaces import Namespace
from operators import Operator
from standin_runs import standin
from testbed import Node

MINUTES = 60.0
EXPLAINED_SECONDS = 90
GPU = {"prepare": {"template": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}}
TOKEN = {"model": {"tokenSecret": {"name": "hub", "key": "token"}}}
RUNS = {
    "no-image": standin("no-image", image="localhost/nobody/has-this:1"),
    "no-secret": standin("no-secret", **TOKEN),
    "no-gpu": standin("no-gpu", stages=GPU),
    "no-claim": standin("no-claim", workspace={"claimName": "missing"}),
    "no-volume": standin("no-volume", workspace={"claimName": "unbound"}),
}
SAID = {
    "no-image": ("failed to pull and unpack image", "correct spec.image"),
    "no-secret": ('secret "hub" not found', "create what is missing"),
    "no-gpu": ("Insufficient nvidia.com/gpu", "lower spec.stages.prepare.template.resources"),
    "no-claim": ('persistentvolumeclaim "missing" not found', "create the claim"),
    "no-volume": ("unbound immediate PersistentVolumeClaims", "the claim has no volume"),
}


@pytest.fixture(scope="module")
def space(lab: Lab, operator: Operator) -> Iterator[Namespace]:
    space = Namespace.create(lab, "stuck")
    claim = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}
    lab.create("persistentvolumeclaims", space.name, {"metadata": {"name": "unbound"}, "spec": claim})
    for manifest in RUNS.values():
        lab.create("spporuns", space.name, manifest)
    yield space
    space.remove()


def explained(lab: Lab, space: Namespace, name: str) -> Object:
    """The run once its status says why it does not get on."""
    return lab.until_run(
        space.name, name, lambda run: condition(run, "Progressing")["reason"] == "PodsStuck", seconds=3 * MINUTES
    )


@pytest.mark.parametrize("name", RUNS)
def test_a_stuck_pod_is_explained(lab: Lab, space: Namespace, name: str) -> None:
    run = explained(lab, space, name)
    progressing, (says, remedy) = condition(run, "Progressing"), SAID[name]
    assert says in progressing["message"]
    assert remedy in progressing["message"]
    assert progressing["status"] == "False"
    explained_at = datetime.fromisoformat(progressing["lastTransitionTime"])
    (pod,) = lab.list("pods", space.name, f"sppo.dev/run={name}")
    assert (
        explained_at - datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    ).total_seconds() < EXPLAINED_SECONDS


def test_runs_go_on_when_the_explanations_are_heeded(
    lab: Lab, space: Namespace, operator: Operator, node: Node
) -> None:
    for name in RUNS:
        explained(lab, space, name)
    space.patch("no-image", {"image": operator.trainer})
    lab.create("secrets", space.name, {"metadata": {"name": "hub"}, "stringData": {"token": "hf_secret"}})
    node.pretend_gpus(1)
    space.claim("missing", space.workspace)
    space.volume("unbound", space.workspace)
    try:
        for name in RUNS:
            run = lab.until_over(space.name, name, seconds=5 * MINUTES)
            assert condition(run, "Succeeded")["status"] == "True"
    finally:
        node.pretend_gpus(0)
