"""The queries of a dashboard as Grafana would send them: for tests, and for the preview."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Span:
    """The time range of a dashboard."""

    start: float
    end: float
    """In seconds since 1970."""
    scrape_seconds: float

    @property
    def step(self) -> float:
        """Seconds between two points of a curve."""
        return max((self.end - self.start) / 500, self.scrape_seconds, 1.0)

    def variables(self) -> dict[str, str]:
        """As Grafana's data source computes them."""
        rate = max(self.step + self.scrape_seconds, 4 * self.scrape_seconds)
        return {"__rate_interval": f"{rate:.0f}s", "__range": f"{max(self.end - self.start, 1):.0f}s"}


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One query of a panel."""

    panel: str
    letter: str
    expression: str
    legend: str
    instant: bool

    def __str__(self) -> str:
        return f"{self.panel}, {self.letter}: {self.expression}"


def panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All panels, without the rows that part them."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def asks(panel: Mapping[str, Any], variables: Mapping[str, str]) -> Sequence[Ask]:
    """The queries of a panel; raises ValueError if a variable is left."""
    return [
        Ask(
            panel=panel["title"],
            letter=target["refId"],
            expression=filled(target["expr"], variables),
            legend=target.get("legendFormat", ""),
            instant=target.get("instant", False),
        )
        for target in panel["targets"]
    ]


def filled(text: str, variables: Mapping[str, str]) -> str:
    for name, value in variables.items():
        text = text.replace(f"${name}", value)
    if "$" in text:
        raise ValueError(f"{text!r} has a variable besides {', '.join(variables)}: give it a value")
    return text
