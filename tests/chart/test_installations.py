"""What holds for every installation, whichever values it has."""

from __future__ import annotations

from typing import Any

import pytest
from chart_values import INSTALLATIONS
from helm_chart import NAMESPACE, RELEASE, Helm, Object, Values, container, of_kind, pod
from sppo_operator import __version__
from sppo_operator.settings import Settings

CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
STANDARD = {
    "app.kubernetes.io/name": "sppo-operator",
    "app.kubernetes.io/instance": RELEASE,
    "app.kubernetes.io/version": __version__,
    "app.kubernetes.io/component": "operator",
    "app.kubernetes.io/part-of": "sppo-operator",
}

installations = pytest.mark.parametrize("values", INSTALLATIONS.values(), ids=INSTALLATIONS)


def named(item: Object) -> tuple[str, str, str]:
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


@installations
def test_helm_3_renders_the_same(helm: Helm, helm_3: Helm, values: Values) -> None:
    assert sorted(helm_3.render(values), key=named) == sorted(helm.render(values), key=named)


@installations
def test_no_two_objects_have_one_name_and_none_lacks_a_namespace(helm: Helm, values: Values) -> None:
    names = [named(item) for item in helm.render(values)]
    assert len(names) == len(set(names))
    assert {kind for kind, namespace, _ in names if not namespace} <= CLUSTER_WIDE


@installations
def test_all_objects_and_pods_have_the_standard_and_the_extra_labels(helm: Helm, values: Values) -> None:
    items = helm.render(values)
    wanted = STANDARD | values.get("extraLabels", {})
    for labelled in [*items, pod(items)]:
        assert wanted.items() <= labelled["metadata"]["labels"].items()
        assert not {"app.kubernetes.io/managed-by", "helm.sh/chart"} & labelled["metadata"]["labels"].keys()


def selectors(items: list[Object]) -> dict[str, Any]:
    """Every selector that has to find the operator's pods, by whose it is."""
    found = {
        f"constraint {index}": one["labelSelector"]
        for index, one in enumerate(pod(items)["spec"].get("topologySpreadConstraints", ()))
    }
    apart = pod(items)["spec"].get("affinity", {}).get("podAntiAffinity", {})
    for index, one in enumerate(apart.get("preferredDuringSchedulingIgnoredDuringExecution", ())):
        found[f"term {index}"] = one["podAffinityTerm"]["labelSelector"]
    for item in items:
        if item["kind"] in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
            found[item["kind"]] = item["spec"]["selector"]
        if item["kind"] == "NetworkPolicy":
            found["NetworkPolicy"] = item["spec"]["podSelector"]
        if item["kind"] == "Service":
            found["Service"] = {"matchLabels": item["spec"]["selector"]}
    return found


@installations
def test_selectors_find_the_pods_of_this_release_and_of_every_version(helm: Helm, values: Values) -> None:
    items = helm.render(values)
    of_the_release = {name: STANDARD[name] for name in ("app.kubernetes.io/name", "app.kubernetes.io/instance")}
    assert of_the_release.items() <= pod(items)["metadata"]["labels"].items()
    for whose, selector in selectors(items).items():
        assert selector == {"matchLabels": of_the_release}, whose


@installations
def test_pods_satisfy_pod_security_restricted(helm: Helm, values: Values) -> None:
    items = helm.render(values)
    assert pod(items)["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod(items)["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(items)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert not {"volumes", "hostNetwork", "hostPID", "hostIPC"} & pod(items)["spec"].keys()


@installations
def test_bindings_give_existing_roles_to_the_pods_account(helm: Helm, values: Values) -> None:
    items = helm.render(values)
    names = {named(item) for item in items}
    bindings = of_kind(items, "RoleBinding") + of_kind(items, "ClusterRoleBinding")
    assert len(bindings) >= 2
    for binding in bindings:
        role = binding["roleRef"]
        assert (role["kind"], binding["metadata"].get("namespace", ""), role["name"]) in names
        account = pod(items)["spec"]["serviceAccountName"]
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]


@installations
def test_nothing_may_read_secrets_or_make_pods(helm: Helm, values: Values) -> None:
    roles = [item for item in helm.render(values) if item["kind"].endswith("Role")]
    for rule in (rule for role in roles for rule in role["rules"]):
        assert "*" not in rule["resources"] + rule["verbs"] + rule["apiGroups"]
        assert "secrets" not in rule["resources"]
        assert "pods" not in rule["resources"] or set(rule["verbs"]) <= {"get", "list", "watch"}


@installations
def test_the_operator_understands_its_flags_and_environment(helm: Helm, values: Values) -> None:
    found = container(helm.render(values))
    fields = {"metadata.namespace": NAMESPACE, "metadata.name": "operator-0", "spec.nodeName": "node-0"}
    environment = {
        variable["name"]: variable.get("value") or fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        for variable in found["env"]
    }
    assert len(environment) == len(found["env"])
    settings = Settings.parse(found["args"], environment)
    assert (settings.lease_namespace, settings.identity) == (NAMESPACE, "operator-0")
    assert settings.http_port == found["ports"][0]["containerPort"]
    watched = values.get("watchNamespace", "").replace("release", NAMESPACE)
    assert ",".join(settings.namespaces) == watched


@installations
def test_the_lease_is_the_one_that_the_election_may_update(helm: Helm, values: Values) -> None:
    items = helm.render(values)
    [role] = [item for item in of_kind(items, "Role") if item["metadata"]["name"].endswith("-election")]
    [rule] = [rule for rule in role["rules"] if "resourceNames" in rule]
    assert f"--lease-name={rule['resourceNames'][0]}" in container(items)["args"]
