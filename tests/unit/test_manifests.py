"""The manifests that install the operator: rights, Pod Security, and names that have to agree with each other."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from sppo_operator import __version__
from sppo_operator.settings import Settings

MANIFESTS = Path(__file__).parents[2] / "manifests"
Object = dict[str, Any]

RIGHTS = {
    ("sppo.dev", "spporuns"): "list watch",
    ("sppo.dev", "spporuns/status"): "update",
    ("sppo.dev", "spporuns/finalizers"): "update",
    ("batch", "jobs"): "get list watch create patch delete",
    ("", "services"): "create",
    ("", "pods"): "list watch",
    ("", "pods/log"): "get",
    ("", "events"): "create",
    ("kueue.x-k8s.io", "workloads"): "list",
}
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders the overlays")


def objects(*files: str) -> dict[tuple[str, str], Object]:
    """By kind and name."""
    found = [item for file in files for item in yaml.safe_load_all((MANIFESTS / file).read_text("utf-8"))]
    return {(item["kind"], item["metadata"]["name"]): item for item in found}


OPERATOR = objects("operator/rbac.yaml", "operator/operator.yaml", "operator/network.yaml")
DEPLOYMENT = OPERATOR["Deployment", "sppo-operator"]
POD = DEPLOYMENT["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]


def rendered(folder: str) -> list[Object]:
    text = subprocess.run(["kubectl", "kustomize", MANIFESTS / folder], check=True, capture_output=True).stdout
    return list(yaml.safe_load_all(text))


def rights(role: Object) -> dict[tuple[str, str], str]:
    """Group and resource to verbs."""
    return {
        (group, resource): " ".join(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def test_the_operator_has_these_rights_and_no_others() -> None:
    assert rights(OPERATOR["ClusterRole", "sppo-operator"]) == RIGHTS


def test_of_leases_it_may_touch_its_own_only() -> None:
    named = {
        tuple(rule.get("resourceNames", ())): rule["verbs"]
        for rule in OPERATOR["Role", "sppo-operator-election"]["rules"]
    }
    assert named == {(): ["create"], ("sppo-operator",): ["get", "update"]}


@pytest.mark.parametrize(
    "binding",
    [item for (kind, _), item in OPERATOR.items() if kind.endswith("RoleBinding")],
    ids=lambda item: str(item["metadata"]["name"]),
)
def test_bindings_give_the_roles_to_the_pods_account(binding: Object) -> None:
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) in OPERATOR
    [subject] = binding["subjects"]
    assert (subject["kind"], subject["name"]) == ("ServiceAccount", POD["serviceAccountName"])
    assert (subject["kind"], subject["name"]) in OPERATOR
    assert subject["namespace"] == DEPLOYMENT["metadata"]["namespace"]


def test_its_pods_satisfy_pod_security_restricted() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def test_selectors_find_the_pods() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"].items()
    spread = [constraint["labelSelector"] for constraint in POD["topologySpreadConstraints"]]
    [apart] = POD["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    for selector in (
        DEPLOYMENT["spec"]["selector"],
        *spread,
        apart["podAffinityTerm"]["labelSelector"],
        OPERATOR["PodDisruptionBudget", "sppo-operator"]["spec"]["selector"],
        OPERATOR["NetworkPolicy", "sppo-operator"]["spec"]["podSelector"],
    ):
        assert selector["matchLabels"].items() <= labels


def test_the_network_policy_lets_prometheus_in_at_the_port_of_metrics() -> None:
    [rule] = OPERATOR["NetworkPolicy", "sppo-operator"]["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [CONTAINER["ports"][0]["containerPort"]]


def test_probes_ask_the_port_of_the_health_server() -> None:
    [port] = CONTAINER["ports"]
    assert port["containerPort"] == 8080
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert CONTAINER[probe]["httpGet"] == {"path": path, "port": port["name"]}


def test_the_operator_understands_its_environment() -> None:
    fields = {"metadata.namespace": "sppo-system", "metadata.name": "sppo-operator-0"}
    environment = {
        variable["name"]: variable.get("value") or fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        for variable in CONTAINER["env"]
    }
    settings = Settings.parse(CONTAINER.get("args", []), environment)
    assert (settings.image, settings.namespaces) == (environment["SPPO_TRAINER_IMAGE"], ())
    assert (settings.lease_namespace, settings.identity) == ("sppo-system", "sppo-operator-0")
    assert settings.http_port == CONTAINER["ports"][0]["containerPort"]
    assert settings.lease_name == OPERATOR["Role", "sppo-operator-election"]["rules"][1]["resourceNames"][0]


def test_the_images_are_those_of_this_version() -> None:
    trainer = next(variable["value"] for variable in CONTAINER["env"] if variable["name"] == "SPPO_TRAINER_IMAGE")
    assert (CONTAINER["image"], trainer) == (f"sppo-operator:{__version__}", f"sppo-trainer:{__version__}")


def test_everything_stands_in_the_namespace_that_is_made_for_it() -> None:
    [name] = [name for kind, name in objects("namespace.yaml") if kind == "Namespace"]
    placed = {item["metadata"].get("namespace", name) for item in OPERATOR.values()}
    assert placed == {name}


@needs_kubectl
def test_all_of_it_is_installed_at_once() -> None:
    kinds = [item["kind"] for item in rendered(".")]
    own = [kind for kind, _ in objects("namespace.yaml", "crd.yaml", "roles.yaml")] + [kind for kind, _ in OPERATOR]
    assert sorted(kinds) == sorted(own)


@needs_kubectl
def test_all_objects_and_pods_have_the_standard_labels() -> None:
    standard = {
        "app.kubernetes.io/name": "sppo-operator",
        "app.kubernetes.io/instance": "sppo-operator",
        "app.kubernetes.io/version": __version__,
        "app.kubernetes.io/component": "operator",
        "app.kubernetes.io/part-of": "sppo-operator",
    }
    items = [*rendered("."), *rendered("single-namespace")]
    pods = [item["spec"]["template"] for item in items if item["kind"] == "Deployment"]
    assert len(pods) == 2
    for labelled in [*items, *pods]:
        assert standard.items() <= labelled["metadata"]["labels"].items()


@needs_kubectl
def test_in_a_single_namespace_nothing_reaches_beyond_it() -> None:
    items = rendered("single-namespace")
    by_name = {(item["kind"], item["metadata"]["name"]): item for item in items}
    assert {item["metadata"].get("namespace") for item in items} == {"sppo"}
    assert not [kind for kind, _ in by_name if kind.startswith("Cluster")]
    assert rights(by_name["Role", "sppo-operator"]) == RIGHTS
    binding = by_name["RoleBinding", "sppo-operator"]
    assert binding["roleRef"]["kind"] == "Role"
    assert binding["subjects"][0]["namespace"] == "sppo"
    container = by_name["Deployment", "sppo-operator"]["spec"]["template"]["spec"]["containers"][0]
    watched = {"name": "SPPO_WATCH_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}
    assert container["env"] == [*CONTAINER["env"], watched]
