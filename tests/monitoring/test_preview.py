"""The preview draws every panel, from answers as Prometheus gives them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

from monitoring.dashboards import FOLDER
from monitoring.preview import page
from monitoring.queries import Ask, Span, filled, panels

SPAN = Span(start=1000.0, end=1600.0, scrape_seconds=30.0)
VARIABLES = {"namespace": "team", "run": "demo", "operator": ".*"}
CONDITION = {"condition": "Succeeded", "status": "Unknown", "reason": "Running"}
LABELS = CONDITION | {
    "namespace": "team",
    "run": "demo",
    "stage": "train",
    "state": "Running",
    "phase": "Training",
    "pod": "a",
}


@dataclass(frozen=True)
class Canned:
    """A source that answers every query alike: with a series of each iteration, or with none."""

    value: str
    iterations: int
    span: Span = SPAN

    def answer(self, ask: Ask) -> list[dict[str, Any]]:
        # A timeline knows whole numbers only.
        points = {"value": [1600, self.value]} if ask.instant else {"values": [[1000, "1"], [1030, "1"]]}
        return [{"metric": LABELS | {"iteration": str(number)}, **points} for number in range(self.iterations)]


@pytest.fixture(params=["run", "fleet"])
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{request.param}.json").read_text("utf-8"))
    return found


def drawn(dashboard: dict[str, Any], value: str = "1", iterations: int = 2) -> dict[str, str]:
    """The inside of every panel, by its title."""
    html = page(dashboard, Canned(value, iterations), VARIABLES)
    found = dict(re.findall(r"<section [^>]*><h3>(.*?)</h3>(.*?)</section>", html, re.DOTALL))
    assert len(found) == len(list(panels(dashboard)))
    return found


def test_panels_with_data_show_it(dashboard: dict[str, Any]) -> None:
    for title, inside in drawn(dashboard).items():
        assert 'class="none"' not in inside, title
        assert re.search(r"<path|<rect|<td|<b style|<div style", inside), title


def test_panels_without_data_say_so(dashboard: dict[str, Any]) -> None:
    for title, inside in drawn(dashboard, iterations=0).items():
        assert inside.startswith('<div class="none">'), title


def test_figures_have_their_units() -> None:
    dashboard = json.loads((FOLDER / "run.json").read_text("utf-8"))
    inside = drawn(dashboard, "0.734", iterations=1)
    assert "0.73" in inside["Newest win rate against the base"]
    assert "73.4 %" in inside["Progress of what runs"]
    assert ">Training<" in inside["Phase"]


def test_a_variable_without_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\$run"):
        filled('x{run="$run"}', {"namespace": "team"})
