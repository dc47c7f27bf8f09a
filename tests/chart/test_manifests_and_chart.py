"""`kubectl apply -k` and Helm install the same objects, field by field."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from helm_chart import ROOT, Helm, Object, Values, objects

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders the manifests")

ONE_NAMESPACE: Values = {"watchNamespace": "release", "crds": {"enabled": False}, "userRoles": {"enabled": False}}


def kustomized(folder: str) -> dict[tuple[str, str], Object]:
    text = subprocess.run(["kubectl", "kustomize", ROOT / folder], check=True, capture_output=True, text=True).stdout
    return by_name(objects(text))


def by_name(items: list[Object]) -> dict[tuple[str, str], Object]:
    return {(item["kind"], item["metadata"]["name"]): item for item in items}


def without_what_only_helm_reads(items: list[Object]) -> dict[tuple[str, str], Object]:
    for item in items:
        annotations = item["metadata"].get("annotations", {})
        kept = {key: value for key, value in annotations.items() if not key.startswith("helm.sh/")}
        item["metadata"] = {key: value for key, value in item["metadata"].items() if key != "annotations"}
        if kept:
            item["metadata"]["annotations"] = kept
    return by_name(items)


def test_the_manifests_are_the_default_chart_and_its_namespace(helm: Helm) -> None:
    manifests = kustomized("manifests")
    del manifests["Namespace", "sppo-system"]
    assert without_what_only_helm_reads(helm.render()) == manifests


def test_the_manifests_of_one_namespace_are_the_chart_for_its_own_namespace(helm: Helm) -> None:
    assert by_name(helm.render(ONE_NAMESPACE, namespace="sppo")) == kustomized("manifests/single-namespace")


def test_values_decide_what_the_manifests_leave_open(helm: Helm) -> None:
    """The comparison above sees a field that differs."""
    assert by_name(helm.render({"workers": 5})).keys() == by_name(helm.render()).keys()
    assert without_what_only_helm_reads(helm.render({"workers": 5})) != without_what_only_helm_reads(helm.render())
