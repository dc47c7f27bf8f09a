"""helm lint, and kube-score on what is rendered."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_values import INSTALLATIONS
from helm_chart import Helm, Values

WORST_TO_BEST = {1: "critical", 5: "warning", 10: "ok"}
IGNORED: dict[str, str] = {}
"""Checks of kube-score that do not fit, and why."""

installations = pytest.mark.parametrize("values", INSTALLATIONS.values(), ids=INSTALLATIONS)


def complaints(kube_score: Path, items: list[dict[str, Any]]) -> dict[str, list[str]]:
    """By check: the objects that do not pass it, and what is said about them."""
    command = [kube_score, "score", "--output-format=json", "-"]
    finished = subprocess.run(command, input=yaml.safe_dump_all(items), capture_output=True, text=True, check=False)
    found: dict[str, list[str]] = {}
    for item in json.loads(finished.stdout):
        for check in item["checks"]:
            if not check["skipped"] and check["grade"] < 10:
                said = "; ".join(comment["summary"] for comment in check["comments"] or ())
                found.setdefault(check["check"]["id"], []).append(f"{item['object_name']}: {said}")
    return found


@installations
def test_helm_lint_has_nothing_to_say(helm: Helm, helm_3: Helm, values: Values) -> None:
    for version in (helm, helm_3):
        linted = version.lint(values)
        assert linted.returncode == 0, linted.stdout + linted.stderr
        assert "[WARNING]" not in linted.stdout


@installations
def test_kube_score_finds_nothing_that_is_not_ignored_for_a_reason(
    helm: Helm, kube_score: Path, values: Values
) -> None:
    found = complaints(kube_score, helm.render(values))
    assert {check: said for check, said in found.items() if check not in IGNORED} == {}
