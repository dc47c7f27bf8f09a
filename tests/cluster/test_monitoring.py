"""A real Prometheus scrapes the real operator during a real run: every panel has data, and an alert fires for real."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import pipeline
import pytest
from lab import Lab, condition, stage
from namespaces import Namespace, lend
from operators import Operator
from prometheus import SCRAPE_SECONDS, Prometheus
from standin_notes import eventually
from testbed import Node

from monitoring import fleet, run
from monitoring.dashboards import FOLDER
from monitoring.queries import Ask, Span, asks, filled, panels

ROOT = Path(__file__).parents[2]
MINUTES = 60.0
RANGE_SECONDS = 10 * MINUTES
GPU = "test.sppo.dev/gpu"
QUERIES = [
    pytest.param(panel, number, id=f"{file} {panel['title']} {target['refId']}")
    for file in ("run", "fleet")
    for panel in panels(json.loads((FOLDER / f"{file}.json").read_text("utf-8")))
    for number, target in enumerate(panel["targets"])
]
POINT_SECONDS = 20 + SCRAPE_SECONDS
"""How old a point of a curve is at most, docs/metrics.md."""
WATCHED, BROKEN = "watched", "broken"


def manifest(name: str, **changes: Any) -> dict[str, Any]:
    """A run of two iterations; `changes` has paths with "__" between the names."""
    spec: dict[str, Any] = pipeline.changed(pipeline.SPEC, "iterations", 2)
    for path, value in changes.items():
        spec = pipeline.changed(spec, path.replace("__", "."), value)
    return {"apiVersion": "sppo.dev/v1alpha1", "kind": "SPPORun", "metadata": {"name": name}, "spec": spec}


def watched(image: str) -> dict[str, Any]:
    """A run with all that the dashboards show; its training lasts, or no look at the pod's log would see its curve."""
    return manifest(
        WATCHED,
        image=image,
        prompts__perIteration=48,
        prompts__heldOut=32,
        training__epochs=90,
        training__learningRate="3e-4",
        evaluation__preference={"kind": "Verifier", "verifier": {"rules": [{"kind": "Finished"}]}},
        stages={"train": {"template": {"resources": {"limits": {GPU: "1"}}}}},
    )


class Watch:
    """A namespace whose runs Prometheus watches, and what it answered meanwhile."""

    def __init__(self, lab: Lab, space: Namespace, prometheus: Prometheus) -> None:
        self.lab = lab
        self.space = space
        self.prometheus = prometheus
        self.answered: set[Ask] = set()
        """The queries that had data."""

    def asks(self, panel: dict[str, Any]) -> list[Ask]:
        return list(asks(panel, self.variables(WATCHED)))

    def variables(self, name: str) -> dict[str, str]:
        return {"namespace": self.space.name, "run": name, "operator": ".*", **_span().variables()}

    def follow(self) -> None:
        """Ask every query until it has data, at the latest some scrapes after the end of the run."""
        everything = {ask for parameters in QUERIES for ask in self.asks(parameters.values[0])}

        def done() -> bool:
            over = self._seconds_since_the_end() > 5 * SCRAPE_SECONDS
            self.answered |= {ask for ask in everything - self.answered if self._answer(ask)}
            return over or self.answered == everything

        eventually(done, 8 * MINUTES)
        self.lab.until_over(self.space.name, WATCHED, seconds=4 * MINUTES)

    def _seconds_since_the_end(self) -> float:
        end = self.lab.run(self.space.name, WATCHED).get("status", {}).get("finishTime")
        return time.time() - datetime.fromisoformat(end).timestamp() if end else 0.0

    def _answer(self, ask: Ask) -> list[dict[str, Any]]:
        if ask.instant:
            return self.prometheus.now(ask.expression)
        span = _span()
        return self.prometheus.over(ask.expression, start=span.start, end=span.end, step=span.step)


def _span() -> Span:
    now = time.time()
    return Span(start=now - RANGE_SECONDS, end=now, scrape_seconds=SCRAPE_SECONDS)


@pytest.fixture(scope="module")
def gpus(lab: Lab, node: Node) -> Iterator[None]:
    """The node has GPUs, as far as Kubernetes knows; it counts them and gives nothing to a pod."""
    [name] = [item["metadata"]["name"] for item in lab.list("nodes")]

    def advertise(count: str | None) -> None:
        lab.patch(
            "nodes", "", name, {"status": {part: {GPU: count} for part in ("capacity", "allocatable")}}, "/status"
        )

    advertise("4")
    yield
    advertise(None)


@pytest.fixture(scope="module")
def watch(
    lab: Lab,
    node: Node,
    operator: Operator,
    gpus: None,
    image: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Watch]:
    trainer = image("trainer")
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), lab, waits={"SPPORunFailed": "0s"})
    space = Namespace.create(lab, "monitoring")
    pipeline.make_workspace(space.workspace, prompts=130)
    lend(space.workspace)
    space.apply(watched(trainer))
    space.apply(manifest(BROKEN, image=trainer, prompts__source="data/nothing.jsonl"))
    watch = Watch(lab, space, prometheus)
    watch.follow()
    yield watch
    space.remove()
    prometheus.stop()


def test_prometheus_scrapes_both_replicas_and_one_leads(watch: Watch, operator: Operator) -> None:
    up = {series["metric"]["pod"]: series["value"][1] for series in watch.prometheus.now("up")}
    assert up == dict.fromkeys(operator.pods(), "1")
    [leading] = watch.prometheus.now("sppo_operator_leader == 1")
    assert leading["metric"]["pod"] == operator.leader()


def test_the_run_succeeds(watch: Watch) -> None:
    found = watch.lab.run(watch.space.name, WATCHED)
    assert condition(found, "Succeeded")["status"] == "True", found["status"]


@pytest.mark.parametrize(("panel", "number"), QUERIES)
def test_query_of_a_panel_has_data(watch: Watch, panel: dict[str, Any], number: int) -> None:
    ask = watch.asks(panel)[number]
    assert ask in watch.answered, str(ask)


def test_the_curve_of_training_is_seen_while_it_trains(watch: Watch) -> None:
    finished = datetime.fromisoformat(stage(watch.lab.run(watch.space.name, WATCHED), 1, "train")["finishTime"])
    curve = 'sppo_run_stage_figure{namespace="%s",run="%s",iteration="1",stage="train",figure="lossOverEta2"}'
    [series] = watch.prometheus.now(f"{curve % (watch.space.name, WATCHED)}[{RANGE_SECONDS:.0f}s]")
    points = [(at, value) for at, value in series["values"] if at < finished.timestamp()]
    seconds = finished.timestamp() - points[0][0]
    assert len({value for _, value in points}) >= max(1, seconds // POINT_SECONDS)


def test_a_run_that_fails_by_its_users_fault_raises_its_alert_and_no_other(watch: Watch) -> None:
    watch.lab.until_over(watch.space.name, BROKEN, seconds=2 * MINUTES)
    eventually(lambda: _firing(watch), 60)
    [alert] = _firing(watch)
    names = {name: alert["labels"][name] for name in ("alertname", "namespace", "run", "reason", "severity")}
    assert names == {
        "alertname": "SPPORunFailed",
        "namespace": watch.space.name,
        "run": BROKEN,
        "reason": "UserFault",
        "severity": "warning",
    }
    assert f"kubectl sppo describe {BROKEN} -n {watch.space.name}" in alert["annotations"]["description"]


@pytest.mark.parametrize("firing", [run.FIRING, fleet.FIRING], ids=["run", "fleet"])
def test_the_dashboards_mark_when_alerts_fired(watch: Watch, firing: str) -> None:
    eventually(lambda: _firing(watch), 60)
    eventually(lambda: watch.prometheus.now(filled(firing, watch.variables(BROKEN))), 30)


@pytest.mark.parametrize("dashboard", ["run", "fleet"])
def test_the_preview_draws_a_dashboard_as_its_page_says(watch: Watch, dashboard: str) -> None:
    variables = (f"namespace={watch.space.name}", f"run={WATCHED}", "operator=.*")
    command = (sys.executable, "-m", "monitoring.preview", dashboard, watch.prometheus.url, *variables)
    drawn = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=MINUTES)
    assert drawn.returncode == 0, drawn.stderr
    titles = [panel["title"] for panel in panels(json.loads((FOLDER / f"{dashboard}.json").read_text("utf-8")))]
    assert [title for title in titles if f"<h3>{escape(title)}</h3>" not in drawn.stdout] == []


def _firing(watch: Watch) -> list[dict[str, Any]]:
    return watch.prometheus.firing()
