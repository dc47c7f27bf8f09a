"""helm lint, and kube-score on what is rendered."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from chart_values import INSTALLATIONS
from helm_chart import Helm, Object, Values

PERFECT = 10
FLAGS = [
    "--enable-optional-test=container-seccomp-profile",
    "--enable-optional-test=container-ports-check",
    "--ignore-container-cpu-limit",  # a leader whose CPU is throttled loses its lease
]
IGNORED = {
    "container-image-pull-policy": "tags are versions and do not move, and a node without its registry starts an operator",
}
"""Checks that no installation passes, and why."""
CHOSEN = {
    "a cluster that chooses users": {"container-security-context-user-group-id"},
    "as little as possible": {"pod-networkpolicy"},
}
"""Checks that fail since the user chose so."""

installations = pytest.mark.parametrize(("name", "values"), INSTALLATIONS.items(), ids=INSTALLATIONS)


def complaints(kube_score: Path, items: list[Object]) -> dict[str, list[str]]:
    """By check: the objects that do not pass it, and what is said about them."""
    command = [kube_score, "score", "--output-format=json", *FLAGS, "-"]
    finished = subprocess.run(command, input=yaml.safe_dump_all(items), capture_output=True, text=True, check=False)
    found: dict[str, list[str]] = {}
    for item in json.loads(finished.stdout):
        for check in item["checks"]:
            if not check["skipped"] and check["grade"] < PERFECT:
                said = "; ".join(comment["summary"] for comment in check["comments"] or ())
                found.setdefault(check["check"]["id"], []).append(f"{item['object_name']}: {said}")
    return found


@installations
def test_helm_lint_has_nothing_to_say(helm: Helm, helm_3: Helm, name: str, values: Values) -> None:
    for version in (helm, helm_3):
        linted = version.lint(values)
        assert linted.returncode == 0, linted.stdout + linted.stderr
        assert "[WARNING]" not in linted.stdout


@installations
def test_kube_score_finds_only_what_was_decided(helm: Helm, kube_score: Path, name: str, values: Values) -> None:
    found = complaints(kube_score, helm.render(values))
    expected = IGNORED.keys() | CHOSEN.get(name, set())
    assert {check: said for check, said in found.items() if check not in expected} == {}


@pytest.mark.parametrize(
    ("name", "exceptions"), [("defaults", set(IGNORED)), *CHOSEN.items()], ids=["defaults", *CHOSEN]
)
def test_exceptions_are_needed(helm: Helm, kube_score: Path, name: str, exceptions: set[str]) -> None:
    assert exceptions <= complaints(kube_score, helm.render(INSTALLATIONS[name])).keys()
