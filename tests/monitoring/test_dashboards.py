"""The dashboards: as the code builds them, by the schema of Grafana's SDK, asking for series that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from sppo_operator.metrics import Metrics
from sppo_operator.run_metrics import FAMILIES

from monitoring.dashboards import ANNOTATION_TEXTS, FOLDER, rendered
from monitoring.queries import asks, panels

RULES = FOLDER.parent / "alerts.yaml"
RUNBOOKS = Path(__file__).parents[2] / "docs/runbooks.md"
FILES = ("run.json", "fleet.json")
VARIABLES = {"__rate_interval": "2m", "__range": "1h", "namespace": "team", "run": "demo", "operator": ".*"}
SCRAPED = {"namespace", "pod", "instance", "job", "container"}
"""Labels that a scrape adds."""
OURS = re.compile(r"\b((?:sppo|process)_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')


@pytest.fixture(params=FILES)
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / request.param).read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """The labels of every series that the operator may have, by the series' name."""
    names = {"sppo_runs": {"namespace", "phase"}}
    for name, family in FAMILIES.items():
        suffix = "_total" if family.counter else ""
        names[f"sppo_run_{name}{suffix}"] = {"namespace", "run", *family.labels.split()}
    metrics = Metrics()
    metrics.called("get", "jobs", 200, 0.1)
    metrics.looked(0.1, "done", "ConflictError")
    metrics.watch_age.labels("pods").set(0)
    metrics.watch_missed.labels("pods")
    for family in metrics.registry.collect():
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of rules, runbooks and dashboards, with where it stands."""
    for number, block in enumerate(re.findall(r"```promql\n(.*?)```", RUNBOOKS.read_text("utf-8"), re.DOTALL)):
        for line in block.splitlines():
            yield f"runbooks {number}", line
    for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for name in FILES:
        found = json.loads((FOLDER / name).read_text("utf-8"))
        for panel in panels(found):
            for ask in asks(panel, VARIABLES):
                yield f"{name} {ask.panel} {ask.letter}", ask.expression


@pytest.mark.parametrize("name", FILES)
def test_file_is_what_the_code_builds(name: str) -> None:
    assert (FOLDER / name).read_text("utf-8") == rendered()[name], "run `make dashboards`"


def test_the_schema_of_the_sdk_knows_every_field_but_the_texts_of_annotations(dashboard: dict[str, Any]) -> None:
    register_default_plugins()
    for annotation in dashboard["annotations"]["list"]:
        for text in ANNOTATION_TEXTS:
            assert annotation.pop(text)
    read = Dashboard.from_json(dashboard)
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == dashboard


def test_panels_fill_the_grid_without_gaps(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        squares = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not squares & taken, panel["title"]
        taken |= squares
    rows = {y for _, y in taken}
    assert taken == {(x, y) for x in range(24) for y in range(max(rows) + 1)}
    identities = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identities)) == len(identities)


def test_every_panel_explains_itself(dashboard: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(set(titles)) == len(titles)
    for panel in panels(dashboard):
        assert panel["description"].rstrip().endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]


def test_no_row_is_empty(dashboard: dict[str, Any]) -> None:
    kinds = [panel["type"] for panel in dashboard["panels"]]
    assert ("row", "row") not in zip(kinds, [*kinds[1:], "row"], strict=True)


def test_curves_of_counters_use_the_interval_that_grafana_computes(dashboard: dict[str, Any]) -> None:
    for panel in panels(dashboard):
        for target in (target for target in panel["targets"] if target.get("range")):
            for range_ in re.findall(r"(?:rate|increase)\([^\[]*\[([^\]]*)\]", target["expr"]):
                assert range_ == "$__rate_interval", panel["title"]


@pytest.mark.parametrize(("place", "expression"), [pytest.param(*pair, id=pair[0]) for pair in expressions()])
def test_expression_asks_for_what_the_operator_exposes(
    exposed: dict[str, set[str]], place: str, expression: str
) -> None:
    asked = OURS.findall(expression)
    assert asked
    for metric, matchers in asked:
        assert metric in exposed, metric
        unknown = set(MATCHER.findall(matchers)) - exposed[metric] - SCRAPED
        assert not unknown, f"{metric} has no label {unknown}"


def test_prometheus_can_read_every_expression(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    rules = [{"record": f"case:{number}", "expr": text} for number, (_, text) in enumerate(expressions())]
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
