"""Panels as HTML and SVG, roughly as Grafana shows them: for the preview alone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from sppo_operator.report.charts import figure_of, ticks

PALETTE = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#ffa6b0", "#96d98d", "#ca95e5")
NAMED = {"green": "#73bf69", "blue": "#5794f2", "orange": "#ff9830", "red": "#f2495c", "purple": "#b877d9"}
LEFT, RIGHT, TOP, BOTTOM = 62, 10, 8, 20
BAR_PIXELS = 22

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    name: str
    points: Sequence[Point]
    colour: str = ""
    """Empty for the palette's next."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where a chart is drawn, and the ends of its axes."""

    width: int
    height: int
    low: Point
    high: Point

    def x(self, value: float) -> float:
        return round(LEFT + _share(value, self.low[0], self.high[0]) * (self.width - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(self.height - BOTTOM - _share(value, self.low[1], self.high[1]) * (self.height - TOP - BOTTOM), 1)

    def path(self, points: Sequence[Point]) -> str:
        return "M" + "L".join(f"{self.x(x)} {self.y(y)}" for x, y in points)


def chart(
    curves: Sequence[Curve],
    *,
    size: tuple[int, int],
    unit: str,
    x_range: Point | None = None,
    stacked: bool = False,
    bars: bool = False,
    band: tuple[Curve, Curve] | None = None,
    line_at: float | None = None,
    y_low: float | None = None,
) -> str:
    """Curves with their legend; over time if there is an `x_range`, else over iterations."""
    colours = [colour_of(curve.colour or PALETTE[number % len(PALETTE)]) for number, curve in enumerate(curves)]
    shown = _stacked(curves) if stacked else list(curves)
    ends = [point for curve in [*shown, *(band or ())] for point in curve.points]
    heights = [y for _, y in ends] + [value for value in (line_at, y_low) if value is not None]
    y_ticks = ticks(min(heights), max(heights))
    low, high = x_range or (min(x for x, _ in ends) - 0.2, max(x for x, _ in ends) + 0.2)
    frame = Frame(width=size[0], height=size[1], low=(low, y_ticks[0]), high=(high, y_ticks[-1]))
    parts = [_grid(frame, y_ticks, unit, _times(low, high) if x_range else _numbers(low, high))]
    if line_at is not None:
        parts.append(f'<path class="dashed" d="M{LEFT} {frame.y(line_at)}H{frame.width - RIGHT}"/>')
    if band:
        outline = [*band[0].points, *reversed(band[1].points)]
        parts.append(f'<path d="{frame.path(outline)}Z" fill="{NAMED["blue"]}" fill-opacity="0.25"/>')
    for number, curve in reversed(list(enumerate(shown))):
        parts.append(_curve(curve, colours[number], frame, area=stacked, bars=bars, dots=not x_range))
    keys = zip((curve.name for curve in curves), colours, strict=True)
    return f'<svg width="{size[0]}" height="{size[1]}">{"".join(parts)}</svg>{legend(keys)}'


def stacks(rows: Sequence[tuple[str, Mapping[str, float]]], *, size: tuple[int, int], unit: str) -> str:
    """A stacked bar per row; its parts have names."""
    names = list(dict.fromkeys(name for _, parts in rows for name in parts))
    top = ticks(0, max(sum(parts.values()) for _, parts in rows))
    frame = Frame(width=size[0], height=size[1], low=(-0.5, 0), high=(len(rows) - 0.5, top[-1]))
    drawn = [_grid(frame, top, unit, [(float(place), label) for place, (label, _) in enumerate(rows)])]
    for place, (_, parts) in enumerate(rows):
        base = 0.0
        for name, value in parts.items():
            y, foot = frame.y(base + value), frame.y(base)
            colour = PALETTE[names.index(name) % len(PALETTE)]
            left, right = frame.x(place - 0.35), frame.x(place + 0.35)
            drawn.append(f'<path d="M{left} {foot}V{y}H{right}V{foot}Z" fill="{colour}" fill-opacity="0.7"/>')
            base += value
    keys = [(name, PALETTE[number % len(PALETTE)]) for number, name in enumerate(names)]
    return f'<svg width="{size[0]}" height="{size[1]}">{"".join(drawn)}</svg>{legend(keys)}'


def states(
    curves: Sequence[Curve],
    colours: Mapping[str, tuple[str, str]],
    *,
    size: tuple[int, int],
    x_range: Point,
    step: float,
) -> str:
    """A row per curve, coloured by its value, which `colours` gives a text and a colour."""
    left = 90
    scale = (size[0] - left - RIGHT) / (x_range[1] - x_range[0])
    height = min((size[1] - BOTTOM) / max(len(curves), 1), BAR_PIXELS)
    parts = []
    for row, curve in enumerate(curves):
        y = row * height
        parts.append(f'<text x="{left - 6}" y="{y + height * 0.7}" text-anchor="end">{escape(curve.name)}</text>')
        for at, value in curve.points:
            colour = colours[f"{value:g}"][1]
            x = left + (at - x_range[0]) * scale
            width = step * scale + 0.6
            parts.append(f'<rect x="{x:.1f}" y="{y + 1}" width="{width:.1f}" height="{height - 2}" fill="{colour}"/>')
    for at, label in _times(*x_range):
        x = left + (at - x_range[0]) * scale
        parts.append(f'<text x="{x:.0f}" y="{size[1] - 4}" text-anchor="middle">{label}</text>')
    return f'<svg width="{size[0]}" height="{size[1]}">{"".join(parts)}</svg>{legend(colours.values())}'


def gauges(values: Sequence[tuple[str, float]], *, unit: str, high: float | None) -> str:
    most = high or max(value for _, value in values) or 1.0
    rows = [
        f'<div class="gauge"><span>{escape(name)}</span><i><b style="width:{100 * value / most:.0f}%"></b></i>'
        f"<em>{escape(quantity(value, unit))}</em></div>"
        for name, value in values
    ]
    return f'<div class="gauges">{"".join(rows)}</div>'


def numbers(values: Sequence[tuple[str, str, str]], *, solid: bool = False) -> str:
    """Names, texts and colours."""
    parts = [
        f'<div style="{"background" if solid else "color"}:{colour}"><small>{escape(name)}</small>{escape(text)}</div>'
        for name, text, colour in values
    ]
    return f'<div class="numbers">{"".join(parts)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Cells are a text and a colour, which may be empty."""
    titles = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f'<td style="color:{colour}">{escape(text)}</td>' for text, colour in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{titles}</tr>{body}</table>"


def legend(keys: Iterable[tuple[str, str]]) -> str:
    parts = [f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in keys]
    return f'<div class="legend">{"".join(parts)}</div>'


def colour_of(name: str) -> str:
    """Grafana's colours have names of its own."""
    return NAMED.get(name, name)


def quantity(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{100 * value:.1f} %"
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    if unit == "s":
        return _duration(value)
    suffix = " /s" if unit == "ops" else ""
    return f"{figure_of(value)}{suffix}"


def _duration(seconds: float) -> str:
    if 0 < seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    for size, name in ((86400, "days"), (3600, "hours"), (60, "mins")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.3g} s"


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / ((high - low) or 1.0)


def _grid(frame: Frame, y_ticks: Sequence[float], unit: str, x_labels: Sequence[tuple[float, str]]) -> str:
    lines = "".join(f"M{LEFT} {frame.y(tick)}H{frame.width - RIGHT}" for tick in y_ticks)
    labels = [
        f'<text x="{LEFT - 6}" y="{frame.y(tick) + 4}" text-anchor="end">{escape(_tick(tick, unit))}</text>'
        for tick in y_ticks
    ]
    labels += [
        f'<text x="{frame.x(at)}" y="{frame.height - 4}" text-anchor="middle">{label}</text>' for at, label in x_labels
    ]
    return f'<path class="grid" d="{lines}"/>{"".join(labels)}'


def _tick(value: float, unit: str) -> str:
    return f"{value:g}" if unit in ("short", "none") else quantity(value, unit)


def _curve(curve: Curve, colour: str, frame: Frame, *, area: bool, bars: bool, dots: bool) -> str:
    if bars:
        foot = frame.y(0)
        strokes = "".join(f"M{frame.x(x)} {foot}V{frame.y(y)}" for x, y in curve.points if y)
        return f'<path d="{strokes}" stroke="{colour}" stroke-width="3"/>'
    parts = [
        f'<path d="{frame.path(curve.points)}" stroke="{colour}" fill="none" stroke-width="{2 if dots else 1.2}"/>'
    ]
    if area:
        down = f"L{frame.x(curve.points[-1][0])} {frame.y(0)}L{frame.x(curve.points[0][0])} {frame.y(0)}Z"
        parts.append(f'<path d="{frame.path(curve.points)}{down}" fill="{colour}" fill-opacity="0.3"/>')
    if dots:
        parts += [f'<circle cx="{frame.x(x)}" cy="{frame.y(y)}" r="4" fill="{colour}"/>' for x, y in curve.points]
    return "".join(parts)


def _stacked(curves: Sequence[Curve]) -> list[Curve]:
    below: dict[float, float] = {}
    found = []
    for curve in curves:
        for x, y in curve.points:
            below[x] = below.get(x, 0.0) + y
        found.append(Curve(name=curve.name, points=[(x, below[x]) for x, _ in curve.points]))
    return found


def _times(low: float, high: float) -> list[tuple[float, str]]:
    steps = (60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
    step = next((step for step in steps if (high - low) / step <= 8), 7 * 86400)
    first = int(low // step + 1) * step
    return [(float(at), time.strftime("%H:%M", time.gmtime(at))) for at in range(first, int(high), step) if at > low]


def _numbers(low: float, high: float) -> list[tuple[float, str]]:
    return [(tick, f"{tick:g}") for tick in ticks(low, high, whole=True) if low <= tick <= high]
