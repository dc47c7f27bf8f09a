"""The API server's verdict on runs, and on the Jobs that the operator makes of them; nothing is stored for long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from lab import Lab
from manifest_table import GOOD, TABLE, difference, listed, merged, refusal
from namespaces import Namespace
from operators import Operator
from sppo_operator.decide import Stage, Step, schedule
from sppo_operator.jobs import job_manifest, needs_service, service_manifest
from sppo_operator.spec import Run
from sppo_operator.validation import admit

ROOT = Path(__file__).parents[2]
# kubectl itself refuses what is no manifest, and a namespace that is no part of a path.
BAD = [case for case in TABLE["bad"] if "text" not in case and case["id"] != "namespace-that-leaves-the-workspace"]
EXAMPLES = {
    path.stem: yaml.safe_load(path.read_text("utf-8")) for path in sorted((ROOT / "manifests/examples").glob("*.yaml"))
}
STRICT = {"dryRun": "All", "fieldValidation": "Strict"}
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
UID = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def space(lab: Lab, operator: Operator) -> Iterator[Namespace]:
    space = Namespace.create(lab, "admission")
    lab.until("serviceaccounts", space.name, lambda accounts: "default" in accounts)
    yield space
    space.remove()


def judge(space: Namespace, case: dict[str, Any]) -> httpx.Response:
    """What the API server says to the manifest of a row, as `kubectl apply` would send it."""
    runs = f"/apis/sppo.dev/v1alpha1/namespaces/{space.name}/spporuns"
    manifest = merged(GOOD, case["patch"])
    if "old" not in case:
        return space.lab.http.post(runs, json=manifest, params=STRICT)
    suspended = {"spec": {"suspend": True}}  # or the operator would begin
    old = merged(merged(GOOD, case["old"]), suspended)
    space.lab.create("spporuns", space.name, old)
    try:
        patch = difference(old, merged(manifest, suspended))
        return space.lab.http.patch(f"{runs}/good", json=patch, params=STRICT, headers=MERGE_PATCH)
    finally:
        space.lab.delete("spporuns", space.name, "good")


@pytest.mark.parametrize("case", BAD, ids=[case["id"] for case in BAD])
def test_a_bad_manifest_is_refused_at_apply_in_the_words_of_sppo_validate(
    space: Namespace, case: dict[str, Any]
) -> None:
    answer = judge(space, case)
    assert answer.status_code in (400, 422), answer.text
    assert as_kubectl_prints(answer.json()) == refusal(case)


@pytest.mark.parametrize("case", TABLE["accepted"], ids=[case["id"] for case in TABLE["accepted"]])
def test_a_manifest_at_the_bounds_is_stored_as_sppo_run_reads_it(space: Namespace, case: dict[str, Any]) -> None:
    answer = judge(space, case)
    assert answer.is_success, answer.text
    mine = admit(merged(GOOD, case["patch"]))["spec"]
    assert answer.json()["spec"] == (mine | {"suspend": True} if "old" in case else mine)


@pytest.mark.parametrize("name", [*EXAMPLES, "everything"])
def test_the_jobs_of_a_run_are_accepted_without_a_warning(space: Namespace, name: str) -> None:
    manifest = EXAMPLES[name] if name in EXAMPLES else everything()
    resource = admit(merged(manifest, {"metadata": {"namespace": space.name}}))
    accept(space, "apis/sppo.dev/v1alpha1", "spporuns", resource)
    run = Run.of(resource)
    if needs_service(run):
        accept(space, "api/v1", "services", service_manifest(run, UID))
    for step in (*schedule(1), *(Step(100, stage) for stage in Stage)):
        job = job_manifest(run, UID, step, 99999, image="sppo-trainer:0.1.0", retries_left=3)
        accept(space, "apis/batch/v1", "jobs", job)
        # Pod Security judges pods, and only warns about what makes them.
        template = job["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "spec": template["spec"]}
        accept(space, "api/v1", "pods", pod | {"metadata": template["metadata"] | {"name": "worker"}})


def accept(space: Namespace, group: str, plural: str, body: dict[str, Any]) -> None:
    answer = space.lab.http.post(f"/{group}/namespaces/{space.name}/{plural}", json=body, params=STRICT)
    assert (answer.status_code, answer.headers.get("Warning")) == (201, None), answer.text


def as_kubectl_prints(status: dict[str, Any]) -> str:
    """The API server's refusal as `kubectl apply` shows it (k8s.io/kubectl, pkg/cmd/util, checkErr)."""
    if status["reason"] != "Invalid":
        return str(status["message"])
    causes = [f"{cause['field']}: {cause['message']}" for cause in status["details"]["causes"]]
    return f'The {status["details"]["kind"]} "{status["details"].get("name", "")}" is invalid: {listed(list(dict.fromkeys(causes)))}'


def everything() -> dict[str, Any]:
    """A run with the longest name that sets all that a pod can get."""
    limits = {"nvidia.com/gpu": 1, "cpu": "500m", "memory": "1Gi"}
    term = {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}
    template = {
        "resources": {"limits": limits},
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}},
        "volumes": [{"name": "data", "configMap": {"name": "data"}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "env": [
            {"name": "OMP_NUM_THREADS", "value": "3"},
            {"name": "CA", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ],
        "labels": {"team": "a"},
        "annotations": {"kueue.x-k8s.io/podset-preferred-topology": "rack"},
        "serviceAccountName": "default",
        "imagePullSecrets": [{"name": "registry"}],
    }
    judge = {
        "endpoint": "http://judge/v1",
        "model": "m",
        "rubric": "r",
        "apiKeySecret": {"name": "judge", "key": "key"},
    }
    workers = {
        Stage.GENERATE: {"workers": 256},
        Stage.SCORE: {"workers": 256},
        Stage.TRAIN: {"workers": 64, "processesPerWorker": 8},
    }
    spec = {
        "model": {"tokenSecret": {"name": "hub", "key": "token"}},
        "preference": {"kind": "Judge", "judge": judge, "verifier": None},
        "evaluation": {"preference": {"kind": "Judge", "judge": judge}},
        "queue": {"name": "team", "priorityClass": "research"},
        "stages": {
            str(stage): {"template": template, "deadlineSeconds": 31536000} | workers.get(stage, {}) for stage in Stage
        },
    }
    return merged(GOOD, {"metadata": {"name": "r" * 38}, "spec": spec})
