"""The alert rules under Prometheus' own tool, and the runbook that each of them links to."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "charts/sppo-operator/files/alerts.yaml"
CASES = sorted((Path(__file__).parent / "alerts").glob("*.yaml"))
RUNBOOKS = ROOT / "docs/runbooks.md"
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]
]


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if not found:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    return found


def by_tool(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_the_rules(promtool: str) -> None:
    assert f"{len(ALERTS)} rules found" in by_tool(promtool, "check", "rules", str(RULES))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_alert_fires_when_it_should_and_only_then(promtool: str, case: Path) -> None:
    by_tool(promtool, "test", "rules", str(case))


@pytest.mark.parametrize("name", sorted({alert["alert"] for alert in ALERTS}))
def test_alert_has_cases_of_firing_and_of_silence(name: str) -> None:
    [case] = [case for case in CASES if case.stem == name]
    expected = [
        bool(check["exp_alerts"])
        for test in yaml.safe_load(case.read_text("utf-8"))["tests"]
        for check in test["alert_rule_test"]
        if check["alertname"] == name
    ]
    assert {True, False} == set(expected)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert['alert']}-{alert['labels'].get('reason', '')}")
def test_alert_says_what_a_person_on_call_needs(alert: dict[str, Any]) -> None:
    assert alert["for"]
    assert alert["labels"]["severity"] in ("warning", "critical")
    texts = alert["annotations"]
    assert texts["summary"].endswith(".") and "{" not in texts["summary"]
    assert "$labels.namespace" in texts["description"] and "First: " in texts["description"]
    assert texts["runbook_url"] == f"docs/runbooks.md#{alert['alert'].lower()}"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    sections = re.findall(r"^## (SPPO\w+)$", RUNBOOKS.read_text("utf-8"), re.MULTILINE)
    assert sections == list(dict.fromkeys(alert["alert"] for alert in ALERTS))
