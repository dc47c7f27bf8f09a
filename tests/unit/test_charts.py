"""Charts: round ticks, and points inside the frame."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sppo_operator.report.charts import HEIGHT, WIDTH, Series, figure_of, line_chart, ticks

NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda value: round(value, 6))


@pytest.mark.parametrize(
    ("low", "high", "whole", "expected"),
    [
        (0.48, 0.77, False, [0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8]),
        (0, 2, True, [0, 1, 2]),
        (1, 1, True, [1, 2]),
        (-3, 12, False, [-5, 0, 5, 10, 15]),
        (0.5, 0.5, False, [0.5, 0.6]),
        (0, 2.5e-12, False, [0, 5e-13, 1e-12, 1.5e-12, 2e-12, 2.5e-12]),
        (0, 5e-324, False, [0, 0.2]),
    ],
)
def test_ticks(low: float, high: float, whole: bool, expected: list[float]) -> None:
    assert ticks(low, high, whole=whole) == expected


@given(st.lists(NUMBERS, min_size=2, max_size=2).map(sorted), st.booleans())
def test_ticks_cover_evenly(ends: list[float], whole: bool) -> None:
    marks = ticks(*ends, whole=whole)
    assert marks[0] <= ends[0] + 1e-9
    assert ends[1] <= marks[-1] + 1e-9
    assert 2 <= len(marks) <= 9
    steps = [later - earlier for earlier, later in itertools.pairwise(marks)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-3, abs_tol=1e-9) for step in steps)


@given(st.lists(st.tuples(st.integers(0, 100), NUMBERS), min_size=1, max_size=40))
def test_all_points_lie_in_the_frame(points: list[tuple[int, float]]) -> None:
    chart = line_chart("A < B", "step", [Series(name="one & two", points=points)], reference=0.5)
    svg = ET.fromstring(chart).find("svg")
    assert svg is not None
    polyline = svg.find(".//polyline")
    assert polyline is not None
    for pair in polyline.attrib["points"].split():
        x, y = map(float, pair.split(","))
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (0, "0"),
        (0.72681, "0.727"),
        (-0.08134, "-0.081"),
        (1.68e-4, "1.7e-4"),
        (2e-4, "2e-4"),
        (1656.7, "1657"),
        (-2.5e7, "-2.5e7"),
    ],
)
def test_labels_are_short(value: float, label: str) -> None:
    assert figure_of(value) == label


def drawn(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The pixels that the chart's line joins."""
    svg = ET.fromstring(line_chart("curve", "step", [Series(name="one", points=points)])).find("svg")
    assert svg is not None
    polyline = svg.find(".//polyline")
    assert polyline is not None
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in polyline.attrib["points"].split())]


@given(st.dictionaries(st.integers(0, 4999), NUMBERS, max_size=5))
def test_a_long_curve_keeps_its_ends_and_its_spikes(spikes: dict[int, float]) -> None:
    values = [spikes.get(step, math.sin(step)) for step in range(5000)]
    places = drawn([(float(step), value) for step, value in enumerate(values)])
    extremes = drawn([(0.0, min(values)), (len(values) - 1.0, max(values))])
    assert len(places) <= 4 * WIDTH
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert {min(places)[0], max(places)[0]} == {x for x, _ in extremes}
    assert {min(y for _, y in places), max(y for _, y in places)} == {y for _, y in extremes}


def test_series_of_one_name_share_a_colour_and_a_mark() -> None:
    series = [Series(name=name, points=[(0, 1), (1, 2)]) for name in ("best", "worst", "best")]
    chart = line_chart("curve", "step", series, marks={0: "iteration 1", 1: "2"})
    assert [chart.count(f'class="line s{colour}"') for colour in range(3)] == [2, 1, 0]
    assert chart.count('class="key s0"') == chart.count('class="key s1"') == 1
    assert ">iteration 1</text>" in chart


def test_no_points_no_chart() -> None:
    assert line_chart("empty", "step", [Series(name="none", points=[])], reference=0.5) == ""
