"""Line charts as inline SVG, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sppo_operator.report.markup import text

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 50, 20, 40
COLOURS = 3
"""The style sheet's classes s0, s1, …; each has a mark of its own too."""
DOTTED_POINTS = 40
"""With more points of one name, lines show their marks at their ends only."""
LABEL_PIXELS = 14
DODGE_PIXELS = 7
"""How far the intervals of two series stand apart at one x."""
MARK_LABEL_PIXELS = 24
SMALLEST, LARGEST = 1e-300, 1e300
"""Differences beyond them may be zero or infinite."""

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points (x, y) that a line joins, and where known the interval (low, high) of each."""

    name: str
    """Series of one name share a colour and a key."""
    points: Sequence[Point]
    intervals: Sequence[Point] = ()


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Maps low..high to pixels start..end, and says where its ticks are."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def line_chart(
    title: str,
    x_title: str,
    series: Iterable[Series],
    *,
    reference: float | None = None,
    cover: Sequence[float] = (),
    marks: Mapping[float, str] | None = None,
) -> str:
    """One chart; empty if there are no points, or none that can be drawn together.

    `reference` draws a dashed line at that height, `cover` has values that the y axis holds whatever the data are,
    `marks` a labelled vertical line at each x.
    """
    series = [line for line in series if line.points]
    if not series:
        return ""
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    ys += [end for line in series for both in line.intervals for end in both]
    ys += [*cover, *(() if reference is None else (reference,))]
    if max(map(abs, ys)) > LARGEST:
        return ""
    x, y = _x_axis(min(xs), max(xs)), _y_axis(min(ys), max(ys))
    colours = {name: number % COLOURS for number, name in enumerate(dict.fromkeys(line.name for line in series))}
    parts = [_grid(x, y, x_title), _marks(marks or {}, x)]
    if reference is not None:
        parts.append(f'<path class="reference" d="M{LEFT} {y(reference)}H{WIDTH - RIGHT}"/>')
    dodges = _dodges(series, colours)
    counts = Counter(line.name for line in series for _ in line.points)
    dots = max(counts.values()) <= DOTTED_POINTS
    parts += [_line(line, colours[line.name], x, y, dots=dots, dodge=dodges[line.name]) for line in series]
    parts.append(_ends(series, colours, y))
    summary = f"{title}. {'; '.join(_in_words(name, series) for name in colours)}."
    return (
        f'<figure class="chart"><figcaption>{text(title)}{_legend(colours)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(summary)}">{"".join(parts)}</svg></figure>'
    )


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers that cover low..high in at most about six steps."""
    span = next((span for span in (high - low, abs(high)) if span > SMALLEST), 1.0)
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= 6)
    step = max(1.0, step) if whole else step
    first, last = math.floor(low / step), math.ceil(high / step)
    return [float(f"{index * step:.12g}") for index in range(first, max(last, first + 1) + 1)]


def figure_of(value: float) -> str:
    """A number as a label of at most six characters before its sign, such as 0.727, 0.081, -12.5, 1.7e-4."""
    if 0 < abs(value) < 0.001 or abs(value) >= 100_000:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}" if value == 0 or abs(value) >= 0.1 else f"{value:.2g}"


def _x_axis(low: float, high: float) -> Axis:
    """Its ends are the data's: a curve fills the frame."""
    if low == high:
        low, high = low - 1, high + 1
    within = [tick for tick in ticks(low, high, whole=True) if low <= tick <= high]
    return Axis(low=low, high=high, start=LEFT + 10, end=WIDTH - RIGHT - 10, ticks=within)


def _y_axis(low: float, high: float) -> Axis:
    covering = ticks(low, high)
    return Axis(low=covering[0], high=covering[-1], start=HEIGHT - BOTTOM, end=TOP, ticks=covering)


def _grid(x: Axis, y: Axis, x_title: str) -> str:
    lines = "".join(f"M{LEFT} {y(tick)}H{WIDTH - RIGHT}" for tick in y.ticks)
    labels = [f'<text x="{LEFT - 7}" y="{y(tick) + 4}" text-anchor="end">{_tick(tick)}</text>' for tick in y.ticks]
    labels += [
        f'<text x="{x(tick)}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{tick:g}</text>' for tick in x.ticks
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    labels.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{text(x_title)}</text>')
    return f'<path class="grid" d="{lines}"/><g class="labels">{"".join(labels)}</g>'


def _tick(value: float) -> str:
    return f"{value:g}" if value == 0 or abs(value) >= 0.001 else figure_of(value)


def _marks(marks: Mapping[float, str], x: Axis) -> str:
    """Vertical lines; a label is left out where the one before is too near."""
    lines, labels, free = "", [], 0.0
    for at, label in sorted(marks.items()):
        lines += f"M{x(at)} {TOP}V{HEIGHT - BOTTOM}"
        if x(at) >= free:
            labels.append(f'<text x="{x(at) + 3}" y="{TOP - 6}">{text(label)}</text>')
            free = x(at) + MARK_LABEL_PIXELS + 6 * len(label)
    return f'<path class="mark" d="{lines}"/><g class="labels">{"".join(labels)}</g>' if lines else ""


def _dodges(series: Sequence[Series], colours: Mapping[str, int]) -> dict[str, float]:
    """Sideways shifts by which intervals of several series can be told apart."""
    spread = DODGE_PIXELS if any(line.intervals for line in series) else 0
    return {name: (number - (len(colours) - 1) / 2) * spread for number, name in enumerate(colours)}


def _line(line: Series, colour: int, x: Axis, y: Axis, *, dots: bool, dodge: float) -> str:
    places = [(round(x(px) + dodge, 1), y(py)) for px, py in line.points]
    path = " ".join(f"{px},{py}" for px, py in _thinned(places))
    bars = "".join(
        f"M{px} {y(low)}V{y(high)}M{px - 4} {y(low)}h8M{px - 4} {y(high)}h8"
        for (px, _), (low, high) in zip(places, line.intervals, strict=False)
    )
    shown = "".join(
        _dot(colour, place, f"{line.name}, {figure_of(px)}: {figure_of(py)}")
        for place, (px, py) in list(zip(places, line.points, strict=True))[0 if dots else -1 :]
    )
    spread = f'<path class="interval" d="{bars}"/>' if bars else ""
    return f'<g class="line s{colour}">{spread}<polyline points="{path}"/>{shown}</g>'


def _dot(colour: int, place: Point, title: str) -> str:
    """A circle, a square or a triangle: colour alone tells nothing to some."""
    px, py = place
    shape = (
        f"M{px - 3.5} {py}a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0",
        f"M{px - 3.2} {py - 3.2}h6.4v6.4h-6.4z",
        f"M{px} {py - 4.4}l4.4 7.6h-8.8z",
    )[colour]
    return f'<path class="dot" d="{shape}"><title>{text(title)}</title></path>'


def _thinned(places: Sequence[Point]) -> list[Point]:
    """At most four points per pixel column (first, lowest, highest, last): a long curve looks the same and is small."""
    columns: dict[int, list[tuple[float, float, int]]] = {}
    for index, (px, py) in enumerate(places):
        columns.setdefault(int(px), []).append((py, px, index))
    kept = [entry for column in columns.values() for entry in {column[0], min(column), max(column), column[-1]}]
    return [(px, py) for py, px, _ in sorted(kept, key=lambda entry: entry[2])]


def _ends(series: Sequence[Series], colours: Mapping[str, int], y: Axis) -> str:
    """The last value of every name, written beside its end, none over another."""
    last = {line.name: line.points[-1][1] for line in series}
    labels, free = [], float(TOP)
    for name in sorted(last, key=lambda name: -last[name]):
        at = max(y(last[name]) + 4, free)
        free = at + LABEL_PIXELS
        labels.append(f'<text class="s{colours[name]}" x="{WIDTH - RIGHT + 5}" y="{at}">{figure_of(last[name])}</text>')
    return f'<g class="ends">{"".join(labels)}</g>'


def _legend(colours: Mapping[str, int]) -> str:
    if len(colours) < 2:
        return ""
    keys = [
        f'<span class="key s{colour}"><svg viewBox="0 0 14 14" aria-hidden="true">{_dot(colour, (7, 7), name)}</svg>'
        f"{text(name)}</span>"
        for name, colour in colours.items()
    ]
    return f'<span class="keys">{"".join(keys)}</span>'


def _in_words(name: str, series: Iterable[Series]) -> str:
    points = [point for line in series if line.name == name for point in line.points]
    (first_x, first), (last_x, last) = points[0], points[-1]
    if len(points) == 1:
        return f"{name}: {figure_of(first)} at {figure_of(first_x)}"
    return f"{name}: from {figure_of(first)} at {figure_of(first_x)} to {figure_of(last)} at {figure_of(last_x)}"
