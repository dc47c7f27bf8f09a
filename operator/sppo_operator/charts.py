"""Line charts as inline SVG, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 40
COLOURS = 3
"""The style sheet's classes s0, s1, …"""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points (x, y) that a line joins, and where known the interval (low, high) of each."""

    name: str
    """Series of one name share a colour and a key."""
    points: Sequence[tuple[float, float]]
    intervals: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Scale:
    """Maps low..high to pixels start..end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def line_chart(title: str, x_title: str, series: Sequence[Series], *, reference: float | None = None) -> str:
    """One chart; `reference` draws a dashed line at that height. Empty if there are no points."""
    series = [line for line in series if line.points]
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points] + [
        end for line in series for both in line.intervals for end in both
    ]
    if not xs:
        return ""
    ys += [reference] if reference is not None else []
    x_ticks, y_ticks = ticks(min(xs), max(xs), whole=True), ticks(min(ys), max(ys))
    x = Scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    y = Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [_grid(x, y, x_ticks, y_ticks, x_title)]
    if reference is not None:
        parts.append(
            f'<line class="reference" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(reference)}" y2="{y(reference)}"/>'
        )
    colours = {name: number % COLOURS for number, name in enumerate(dict.fromkeys(line.name for line in series))}
    parts += [_line(line, colours[line.name], x, y) for line in series]
    keys = [f'<span class="key s{colour}">{escape(name)}</span>' for name, colour in colours.items()]
    legend = "".join(keys) if len(keys) > 1 else ""
    return (
        f'<figure><figcaption>{escape(title)} {legend}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers that cover low..high in at most about six steps."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= 6)
    step = max(1.0, step) if whole else step
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(index * step, 10) for index in range(first, max(last, first + 1) + 1)]


def _grid(x: Scale, y: Scale, x_ticks: Sequence[float], y_ticks: Sequence[float], x_title: str) -> str:
    lines = [f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>' for tick in y_ticks]
    labels = [f'<text x="{LEFT - 6}" y="{y(tick) + 4}" text-anchor="end">{tick:g}</text>' for tick in y_ticks]
    labels += [
        f'<text x="{x(tick)}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:g}</text>' for tick in x_ticks
    ]
    labels.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>')
    return f'<g class="grid">{"".join(lines)}</g><g class="labels">{"".join(labels)}</g>'


def _line(line: Series, colour: int, x: Scale, y: Scale) -> str:
    path = " ".join(f"{x(px)},{y(py)}" for px, py in line.points)
    bars = "".join(
        f'<line x1="{x(px)}" x2="{x(px)}" y1="{y(low)}" y2="{y(high)}"/>'
        for (px, _), (low, high) in zip(line.points, line.intervals, strict=False)
    )
    dots = "".join(f'<circle cx="{x(px)}" cy="{y(py)}" r="3"/>' for px, py in line.points if len(line.points) <= 30)
    return f'<g class="line s{colour}"><polyline points="{path}"/>{bars}{dots}</g>'
