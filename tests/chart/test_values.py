"""What each value does."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from chart_values import EVERYTHING, OPERATOR_DIGEST, TRAINER_DIGEST
from helm_chart import CHART, NAMESPACE, ROOT, Helm, Object, Values, container, of_kind, one, pod
from sppo_operator import __version__

WATCHED = "SPPO_WATCH_NAMESPACE"


def variable(items: list[Object], name: str) -> Object | None:
    return next((found for found in container(items)["env"] if found["name"] == name), None)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ({}, f"{{}}:{__version__}"),
        ({"tag": "1.2.3-rc.1"}, "{}:1.2.3-rc.1"),
        ({"repository": "registry.example.com:5000/team/sppo"}, f"registry.example.com:5000/team/sppo:{__version__}"),
        ({"digest": OPERATOR_DIGEST, "tag": "1.2.3"}, f"{{}}@{OPERATOR_DIGEST}"),
    ],
    ids=["chart's version", "tag", "repository", "digest wins over tag"],
)
def test_images(helm: Helm, image: Values, name: str) -> None:
    items = helm.render({"image": image, "trainer": {"image": image}})
    assert container(items)["image"] == name.format("sppo-operator")
    assert variable(items, "SPPO_TRAINER_IMAGE") == {"name": "SPPO_TRAINER_IMAGE", "value": name.format("sppo-trainer")}


def test_operator_and_trainer_have_digests_of_their_own(helm: Helm) -> None:
    items = helm.render({"image": {"digest": OPERATOR_DIGEST}, "trainer": {"image": {"digest": TRAINER_DIGEST}}})
    assert container(items)["image"].endswith(OPERATOR_DIGEST)
    assert str((variable(items, "SPPO_TRAINER_IMAGE") or {})["value"]).endswith(TRAINER_DIGEST)


def test_all_namespaces_are_watched_with_a_cluster_role(helm: Helm) -> None:
    items = helm.render()
    assert variable(items, WATCHED) is None
    assert one(items, "ClusterRoleBinding")["roleRef"]["name"] == one(items, "ClusterRole")["metadata"]["name"]


@pytest.mark.parametrize(
    ("watched", "namespaces"),
    [
        ("release", [NAMESPACE]),
        ("team-a", ["team-a"]),
        ("team-a,team-b", ["team-a", "team-b"]),
        ("release,team-a", [NAMESPACE, "team-a"]),
        (f"release,{NAMESPACE}", [NAMESPACE]),
    ],
)
def test_namespaces_are_watched_with_a_role_in_each(helm: Helm, watched: str, namespaces: list[str]) -> None:
    items = helm.render({"watchNamespace": watched, "userRoles": {"enabled": False}})
    assert not of_kind(items, "ClusterRole") + of_kind(items, "ClusterRoleBinding")
    for kind in ("Role", "RoleBinding"):
        found = [item for item in of_kind(items, kind) if item["metadata"]["name"] == "sppo-operator"]
        assert [item["metadata"]["namespace"] for item in found] == namespaces
    rights = one(helm.render(), "ClusterRole")["rules"]
    assert all(
        item["rules"] == rights for item in of_kind(items, "Role") if item["metadata"]["name"] == "sppo-operator"
    )


def test_the_resource_is_the_one_of_the_manifests(helm: Helm) -> None:
    [resource] = of_kind(helm.render(), "CustomResourceDefinition")
    assert resource["spec"] == yaml.safe_load((ROOT / "manifests/crd.yaml").read_text())["spec"]


@pytest.mark.parametrize(
    ("crds", "policies"),
    [
        ({}, ["keep"]),
        ({"keep": False}, [None]),
        ({"enabled": False}, []),
    ],
    ids=["kept", "not kept", "not installed"],
)
def test_the_resource_outlives_the_release_if_wanted(helm: Helm, crds: Values, policies: list[str | None]) -> None:
    resources = of_kind(helm.render({"crds": crds}), "CustomResourceDefinition")
    assert [item["metadata"].get("annotations", {}).get("helm.sh/resource-policy") for item in resources] == policies


def test_roles_for_users_join_the_clusters_own(helm: Helm) -> None:
    items = helm.render()
    for name, joined in {"spporun-view": {"view"}, "spporun-edit": {"edit", "admin"}}.items():
        labels = one(items, "ClusterRole", name)["metadata"]["labels"]
        assert {
            label
            for label in ("view", "edit", "admin")
            if labels.get(f"rbac.authorization.k8s.io/aggregate-to-{label}") == "true"
        } == joined
    without = helm.render({"userRoles": {"enabled": False}})
    assert [item["metadata"]["name"] for item in of_kind(without, "ClusterRole")] == ["sppo-operator"]


def test_an_existing_service_account_is_used(helm: Helm) -> None:
    items = helm.render({"serviceAccount": {"create": False, "name": "existing"}})
    assert of_kind(items, "ServiceAccount") == []
    assert pod(items)["spec"]["serviceAccountName"] == "existing"


def test_a_service_account_has_its_annotations_and_gives_its_token_to_no_other_pods(helm: Helm) -> None:
    account = one(
        helm.render({"serviceAccount": {"name": "trainer", "annotations": {"a.example/b": "c"}}}),
        "ServiceAccount",
        "trainer",
    )
    assert account["metadata"]["annotations"] == {"a.example/b": "c"}
    assert account["automountServiceAccountToken"] is False


@pytest.mark.parametrize("field", ["nodeSelector", "tolerations", "priorityClassName", "imagePullSecrets"])
def test_a_field_of_the_pods_is_passed_on(helm: Helm, field: str) -> None:
    assert pod(helm.render(EVERYTHING))["spec"][field] == EVERYTHING[field]
    assert field not in pod(helm.render())["spec"]


def test_labels_and_annotations_of_pods(helm: Helm) -> None:
    items = helm.render(EVERYTHING)
    assert EVERYTHING["podLabels"].items() <= pod(items)["metadata"]["labels"].items()
    assert pod(items)["metadata"]["annotations"] == EVERYTHING["podAnnotations"]
    assert not EVERYTHING["podLabels"].keys() & one(items, "Deployment")["metadata"]["labels"].keys()


def test_a_label_of_pods_wins_over_one_of_all_objects(helm: Helm) -> None:
    items = helm.render({"extraLabels": {"tier": "all"}, "podLabels": {"tier": "pods"}})
    assert pod(items)["metadata"]["labels"]["tier"] == "pods"
    assert one(items, "Deployment")["metadata"]["labels"]["tier"] == "all"


def test_further_flags_and_variables_come_last(helm: Helm) -> None:
    found = container(helm.render(EVERYTHING))
    assert found["args"][-2:] == EVERYTHING["extraArgs"]
    assert found["env"][-2:] == EVERYTHING["env"]


def test_resources_are_those_that_were_measured_or_the_users(helm: Helm) -> None:
    assert container(helm.render())["resources"]["limits"].keys() == {"memory", "ephemeral-storage"}
    chosen = {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi", "cpu": 2}}
    found = container(helm.render({"resources": chosen}))["resources"]
    assert (found["requests"]["memory"], found["limits"]["memory"], found["limits"]["cpu"]) == ("1Gi", "2Gi", 2)


def test_a_number_of_the_security_context_can_be_left_to_the_cluster(helm: Helm) -> None:
    context = pod(helm.render({"podSecurityContext": {"runAsUser": None, "runAsGroup": None}}))["spec"][
        "securityContext"
    ]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


@pytest.mark.parametrize("amount", ["1e9", "1.5", ".5", "+2Gi", "3Pi", 1e9, 2])
def test_amounts_may_be_written_as_kubernetes_reads_them(helm: Helm, amount: str | float) -> None:
    values = {"resources": {"limits": {"memory": amount}}}
    assert container(helm.render(values))["resources"]["limits"]["memory"] in (amount, str(amount))


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("sppo-operator", {}, "sppo-operator"),
        ("prod", {}, "prod-sppo-operator"),
        ("my-sppo-operator-2", {}, "my-sppo-operator-2"),
        ("prod", {"fullnameOverride": "alignment"}, "alignment"),
        ("v1.2", {"metrics": {"serviceMonitor": {"enabled": True}}}, "v1-2-sppo-operator"),
        ("2nd", {}, "2nd-sppo-operator"),
        (f"{'a' * 48}.b", {}, f"{'a' * 48}-b"),
        (f"{'a' * 49}.b", {}, "a" * 49),
    ],
)
def test_objects_are_named_after_the_release(helm: Helm, release: str, values: Values, name: str) -> None:
    assert one(helm.render(values, release=release), "Deployment", name)


def test_the_name_of_a_service_begins_with_a_letter(helm: Helm) -> None:
    values = {"metrics": {"serviceMonitor": {"enabled": True}}}
    message = helm.refusal(values, release="2nd")
    assert "the objects would be named 2nd-sppo-operator" in message
    assert "set fullnameOverride" in message
    assert one(helm.render(values | {"fullnameOverride": "second"}, release="2nd"), "Service", "second")


def test_two_releases_in_one_namespace_share_no_object(helm: Helm) -> None:
    further = EVERYTHING | {"crds": {"enabled": False}, "userRoles": {"enabled": False}}
    first, second = (
        {(item["kind"], item["metadata"]["name"]) for item in helm.render(values, release=release)}
        for release, values in (("sppo-operator", EVERYTHING), ("prod", further))
    )
    assert first & second == set()


def rendered_dashboards(items: list[Object]) -> dict[str, Any]:
    return {name: json.loads(text) for item in of_kind(items, "ConfigMap") for name, text in item["data"].items()}


def test_dashboards_are_those_of_the_chart_where_the_sidecar_looks(helm: Helm) -> None:
    items = helm.render(EVERYTHING)
    files = {f"sppo-{path.name}": json.loads(path.read_text()) for path in (CHART / "files/dashboards").glob("*.json")}
    assert files.keys() == {"sppo-run.json", "sppo-fleet.json"}
    assert rendered_dashboards(items) == files
    for item in of_kind(items, "ConfigMap"):
        assert item["metadata"]["namespace"] == "grafana"
        assert item["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert item["metadata"]["annotations"] == {"grafana_folder": "SPPO"}


def test_the_sidecars_label_can_be_another(helm: Helm) -> None:
    items = helm.render({"dashboards": {"enabled": True, "labels": {"grafana_dashboard": None, "find-me": "yes"}}})
    for item in of_kind(items, "ConfigMap"):
        assert item["metadata"]["labels"]["find-me"] == "yes"
        assert "grafana_dashboard" not in item["metadata"]["labels"]


def test_nothing_needs_other_projects_unless_it_is_asked_for(helm: Helm) -> None:
    assert not [
        item
        for item in helm.render()
        if "monitoring.coreos.com" in item["apiVersion"] or item["kind"] in ("ConfigMap", "Service")
    ]


def strings(value: Any, key: str) -> list[Any]:
    """What stands under a key, wherever it is."""
    if isinstance(value, list):
        return [found for item in value for found in strings(item, key)]
    if isinstance(value, dict):
        return [found for name, item in value.items() for found in ([item] if name == key else strings(item, key))]
    return []


def is_names(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(name, str) for name in found)


def test_names_that_yaml_takes_for_numbers_or_truths_stay_names(helm: Helm) -> None:
    values = {
        "fullnameOverride": "yes",
        "watchNamespace": "1234,null",
        "serviceAccount": {"name": "007"},
        "priorityClassName": "12",
        "image": {"repository": "1", "tag": "2"},
        "dashboards": {"enabled": True, "namespace": "on"},
    }
    items = helm.render(values, release="true", namespace="12e3")
    for key in (
        "namespace",
        "name",
        "serviceAccountName",
        "priorityClassName",
        "app.kubernetes.io/instance",
        "image",
        "resourceNames",
    ):
        found = strings(items, key)
        assert found
        assert [name for name in found if not isinstance(name, (str, dict)) and not is_names(name)] == [], key
