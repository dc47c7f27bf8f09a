"""Where the replicas run, and how many may be away at once."""

from __future__ import annotations

import pytest
from chart_values import EVERYTHING
from helm_chart import Helm, Values, of_kind, one, pod


def test_replicas_are_spread_over_nodes_and_zones_of_one_version(helm: Helm) -> None:
    spec = pod(helm.render())["spec"]
    [preferred] = spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    [constraint] = spec["topologySpreadConstraints"]
    for spread, key in (
        (preferred["podAffinityTerm"], "kubernetes.io/hostname"),
        (constraint, "topology.kubernetes.io/zone"),
    ):
        assert (spread["topologyKey"], spread["matchLabelKeys"]) == (key, ["pod-template-hash"])


NO_TERMS = {"preferredDuringSchedulingIgnoredDuringExecution": None}
OWN = {"topologyKey": "rack", "labelSelector": {"matchLabels": {"a": "b"}}}
RELEASED = {"app.kubernetes.io/name": "sppo-operator", "app.kubernetes.io/instance": "sppo-operator"}
BY_RACK = {"topologyKey": "rack", "labelSelector": {"matchLabels": RELEASED}}


@pytest.mark.parametrize(
    ("affinity", "rendered"),
    [
        ({"podAntiAffinity": None}, None),
        (
            {"podAntiAffinity": NO_TERMS | {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "rack"}, OWN]}},
            {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [BY_RACK, OWN]}},
        ),
        (
            {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": OWN}]}},
            {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": OWN}]}},
        ),
    ],
    ids=["none", "required", "preferred"],
)  # fmt: skip
def test_replicas_may_be_kept_apart_otherwise(helm: Helm, affinity: Values, rendered: Values | None) -> None:
    assert pod(helm.render({"affinity": affinity}))["spec"].get("affinity") == rendered


def test_further_affinity_leaves_the_replicas_apart(helm: Helm) -> None:
    found = pod(helm.render(EVERYTHING))["spec"]["affinity"]
    apart = pod(helm.render())["spec"]["affinity"]
    assert found == EVERYTHING["affinity"] | apart


def test_a_constraint_keeps_its_own_selector(helm: Helm) -> None:
    constraint = {
        "topologyKey": "rack",
        "maxSkew": 2,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"a": "b"}},
    }
    assert pod(helm.render({"topologySpreadConstraints": [constraint]}))["spec"]["topologySpreadConstraints"] == [
        constraint
    ]


@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_drained_nodes_wait_for_so_many_operators(helm: Helm, chosen: int) -> None:
    budget = one(helm.render({"podDisruptionBudget": {"maxUnavailable": chosen}}), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == chosen
    assert of_kind(helm.render({"podDisruptionBudget": {"enabled": False}}), "PodDisruptionBudget") == []
