"""What a panel of a dashboard's JSON says about how its answers are drawn: for the preview alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from monitoring import drawing
from monitoring.drawing import Curve, colour_of, quantity
from monitoring.queries import Ask, Span

COLUMN_PIXELS, ROW_PIXELS = 66, 38

Answer = Sequence[Mapping[str, Any]]
"""Series, as Prometheus' HTTP API has them."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A panel with the answers to its queries."""

    panel: Mapping[str, Any]
    found: Sequence[tuple[Ask, Answer]]
    span: Span

    def html(self) -> str:
        draw = {
            "timeseries": self._lines,
            "trend": self._trend,
            "stat": self._stat,
            "state-timeline": self._timeline,
            "bargauge": self._gauges,
            "barchart": self._matrix,
            "table": self._table,
        }[self.panel["type"]]
        inside = draw() if any(answer for _, answer in self.found) else ""
        return inside or f'<div class="none">{escape(self._defaults["noValue"])}</div>'

    @property
    def _defaults(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.panel["fieldConfig"]["defaults"]
        return found

    @property
    def _unit(self) -> str:
        return str(self._defaults.get("unit", "short"))

    @property
    def _size(self) -> tuple[int, int]:
        at = self.panel["gridPos"]
        return at["w"] * COLUMN_PIXELS - 28, at["h"] * ROW_PIXELS - 68

    def _options(self, transformation: str) -> Mapping[str, Any]:
        [found] = [item["options"] for item in self.panel["transformations"] if item["id"] == transformation]
        options: Mapping[str, Any] = found
        return options

    def _looks(self) -> dict[str, dict[str, Any]]:
        """What overrides say, by the name of a field."""
        return {
            override["matcher"]["options"]: {look["id"]: look["value"] for look in override["properties"]}
            for override in self.panel["fieldConfig"]["overrides"]
        }

    def _curves(self) -> list[Curve]:
        curves = []
        for ask, answer in self.found:
            for series in answer:
                points = [(at, float(value)) for at, value in series["values"]]
                if points := [point for point in points if math.isfinite(point[1])]:
                    curves.append(Curve(name=_name(ask, series), points=points))
        return curves

    def _lines(self) -> str:
        curves, custom = self._curves(), self._defaults["custom"]
        bars = custom.get("drawStyle") == "bars"
        if not curves:
            return ""
        return drawing.chart(
            curves,
            size=self._size,
            unit=self._unit,
            x_range=(self.span.start, self.span.end),
            stacked=not bars and custom.get("stacking", {}).get("mode") == "normal",
            bars=bars,
            y_low=self._defaults.get("min"),
        )

    def _trend(self) -> str:
        names = self._options("organize")["renameByName"]
        curves = {
            names[f"Value #{ask.letter}"]: sorted(
                (float(series["metric"]["iteration"]), float(series["value"][1])) for series in answer
            )
            for ask, answer in self.found
            if answer
        }
        band = None
        for high, looks in self._looks().items():
            low = looks.get("custom.fillBelowTo", "")
            if {low, high} <= curves.keys():
                band = Curve(name=low, points=curves.pop(low)), Curve(name=high, points=curves.pop(high))
        steps = self._defaults.get("thresholds", {}).get("steps", [])
        fixed = {name: looks["color"]["fixedColor"] for name, looks in self._looks().items() if "color" in looks}
        return drawing.chart(
            [Curve(name=name, points=points, colour=fixed.get(name, "")) for name, points in curves.items()],
            size=self._size,
            unit=self._unit,
            band=band,
            line_at=steps[1]["value"] if len(steps) > 1 else None,
        )

    def _stat(self) -> str:
        label = self.panel["options"]["reduceOptions"].get("fields", "").strip("/^$")
        if label:
            word = self.found[0][1][0]["metric"][label]
            colour = self._defaults["mappings"][0]["options"].get(word, {}).get("color", "blue")
            return drawing.numbers([("", word, colour_of(colour))], solid=True)
        return drawing.numbers(
            [(ask.legend, *self._figure(float(series["value"][1]))) for ask, answer in self.found for series in answer]
        )

    def _figure(self, value: float) -> tuple[str, str]:
        """The text and the colour of a number."""
        steps = self._defaults["thresholds"]["steps"]
        colour = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
        decimals = self._defaults.get("decimals")
        if decimals is not None and self._unit == "short":
            return f"{value:.{decimals}f}", colour_of(colour)
        return quantity(value, self._unit), colour_of(colour)

    def _timeline(self) -> str:
        words = self._defaults["mappings"][0]["options"]
        colours = {value: (shown["text"], colour_of(shown["color"])) for value, shown in words.items()}
        return drawing.states(
            self._curves(),
            colours,
            size=self._size,
            x_range=(self.span.start, self.span.end),
            step=self.span.step,
        )

    def _gauges(self) -> str:
        values = [(_name(ask, one), float(one["value"][1])) for ask, answer in self.found for one in answer]
        return drawing.gauges(values, unit=self._unit, high=self._defaults.get("max"))

    def _matrix(self) -> str:
        options = self._options("groupingToMatrix")
        rows: dict[str, dict[str, float]] = {}
        for series in sorted(self.found[0][1], key=lambda series: float(series["metric"][options["rowField"]])):
            row = rows.setdefault(series["metric"][options["rowField"]], {})
            row[series["metric"][options["columnField"]]] = float(series["value"][1])
        return drawing.stacks(list(rows.items()), size=self._size, unit=self._unit)

    def _table(self) -> str:
        names, looks = self._options("organize")["renameByName"], self._looks()
        shared = set.intersection(*(set(series["metric"]) for _, answer in self.found for series in answer))
        rows: dict[tuple[str, ...], dict[str, str]] = {}
        for ask, answer in self.found:
            for series in answer:
                key = series["metric"] if len(self.found) == 1 else {name: series["metric"][name] for name in shared}
                row = rows.setdefault(tuple(sorted(key.values())), {})
                row |= series["metric"]
                if column := names.get(f"Value #{ask.letter}"):
                    row[column] = quantity(float(series["value"][1]), looks.get(column, {}).get("unit", "short"))
        places = self._options("organize")["indexByName"]
        fields = [names.get(field, field) for field in sorted(places, key=places.__getitem__)]
        head = [field for field in dict.fromkeys(fields) if any(field in row for row in rows.values())]

        def cell(row: Mapping[str, str], column: str) -> tuple[str, str]:
            [words] = looks.get(column, {}).get("mappings", [{"options": {}}])
            text = row.get(column, "")
            return text, colour_of(words["options"].get(text, {}).get("color", "inherit"))

        [order] = self.panel["options"]["sortBy"]
        ordered = sorted(
            rows.values(), key=lambda row: row.get(order["displayName"], ""), reverse=order.get("desc", False)
        )
        return drawing.table(head, [[cell(row, column) for column in head] for row in ordered])


def _name(ask: Ask, series: Mapping[str, Any]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda label: str(series["metric"].get(label[1], "")), ask.legend) or ask.panel
