"""What users read after `helm install`: the next commands, for their values."""

from __future__ import annotations

import pytest
from helm_chart import Helm, Values


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({}, ["the SPPORuns of all namespaces.", "kubectl get spporuns -A --watch", "kubectl apply -f run.yaml\n"]),
        (
            {"watchNamespace": "team-a,team-b"},
            [
                "of namespace team-a, team-b.",
                "kubectl apply -f run.yaml -n team-a\n",
                "kubectl get spporuns -n team-a --watch",
            ],
        ),
        ({"fullnameOverride": "alignment"}, ["kubectl rollout status deployment/alignment -n sppo-system"]),
        ({"crds": {"keep": False}}, ["deletes the resource SPPORun and all runs with it, since crds.keep is false"]),
    ],
    ids=["all namespaces", "two namespaces", "another name", "a resource that is not kept"],
)
def test_notes_name_the_next_commands(helm: Helm, values: Values, lines: list[str]) -> None:
    notes = helm.notes(values)
    for line in lines:
        assert line in notes


def test_who_scrapes_already_is_not_told_how_to(helm: Helm) -> None:
    assert "podMonitor.enabled=true" in helm.notes({})
    assert "podMonitor.enabled=true" not in helm.notes({"metrics": {"podMonitor": {"enabled": True}}})


def test_alerts_whose_runbooks_cannot_be_opened_are_told(helm: Helm) -> None:
    rule: Values = {"enabled": True}
    assert "prometheusRule.runbookBase is empty" in helm.notes({"prometheusRule": rule})
    for rules in ({"enabled": False}, rule | {"runbookBase": "https://git.example.com/sppo/"}):
        assert "prometheusRule.runbookBase is empty" not in helm.notes({"prometheusRule": rules})
