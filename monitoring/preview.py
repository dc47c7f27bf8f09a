"""A look at a dashboard without Grafana: its panels in their places, with data of a real Prometheus, as HTML.

python -m monitoring.preview run http://127.0.0.1:9090 namespace=lab run=demo --minutes 30 > preview.html

It shows whether layout, queries and data make sense. Grafana draws the same panels in its own way.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import httpx

from monitoring.dashboards import FOLDER
from monitoring.queries import Ask, Span, asks
from monitoring.views import Answer, View

STYLE = Path(__file__).with_name("preview.css")


class Source:
    """A Prometheus, and the time range that is looked at."""

    def __init__(self, url: str, span: Span) -> None:
        self.span = span
        self._http = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def answer(self, ask: Ask) -> Answer:
        if ask.instant:
            return self._get("query", query=ask.expression, time=self.span.end)
        step = self.span.step
        return self._get("query_range", query=ask.expression, start=self.span.start, end=self.span.end, step=step)

    def _get(self, what: str, **query: str | float) -> Answer:
        response = self._http.get(f"/api/v1/{what}", params=query).raise_for_status()
        found: Answer = response.json()["data"]["result"]
        return found


def page(dashboard: Mapping[str, Any], source: Source, variables: Mapping[str, str]) -> str:
    """The whole dashboard."""
    values = {**variables, **source.span.variables()}
    cells = []
    for panel in dashboard["panels"]:
        at, title = _place(panel), escape(panel["title"])
        if panel["type"] == "row":
            cells.append(f'<h2 style="{at}">{title}</h2>')
        else:
            found = [(ask, source.answer(ask)) for ask in asks(panel, values)]
            inside = View(panel=panel, found=found, span=source.span).html()
            cells.append(f'<section style="{at}"><h3>{title}</h3>{inside}</section>')
    note = (
        "A preview: the panels of the dashboard's JSON with data of a real Prometheus. Grafana draws them its own way."
    )
    head = f"<header><h1>{escape(dashboard['title'])}</h1>{note}</header>"
    style = f"<style>{STYLE.read_text('utf-8')}</style>"
    return f'<!doctype html><meta charset="utf-8">{style}{head}<main>{"".join(cells)}</main>\n'


def _place(panel: Mapping[str, Any]) -> str:
    at = panel["gridPos"]
    return f"grid-column:{at['x'] + 1}/span {at['w']};grid-row:{at['y'] + 1}/span {at['h']}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.preview", description="Draw a dashboard without Grafana, as HTML on standard output."
    )
    parser.add_argument("dashboard", choices=["run", "fleet"])
    parser.add_argument("prometheus", metavar="URL")
    parser.add_argument("variables", metavar="NAME=VALUE", nargs="*", help="values of the dashboard's variables")
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the time range")
    parser.add_argument("--end", type=float, default=time.time(), help="its end, in seconds since 1970")
    parser.add_argument("--scrape-seconds", type=float, default=30.0, help="how often Prometheus scrapes")
    options = parser.parse_args(arguments)
    start = options.end - 60 * options.minutes
    source = Source(options.prometheus, Span(start=start, end=options.end, scrape_seconds=options.scrape_seconds))
    variables = dict(pair.split("=", 1) for pair in options.variables)
    dashboard = json.loads((FOLDER / f"{options.dashboard}.json").read_text("utf-8"))
    sys.stdout.write(page(dashboard, source, variables))


if __name__ == "__main__":
    main()
