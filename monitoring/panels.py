"""Panels of Grafana in the few forms that our dashboards use, so that alike things look alike.

Queries drop the labels of the pod that was scraped: runs are told of by whichever replica leads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders import (
    barchart,
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
    trend,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DynamicConfigValue,
    FieldColorModeId,
    GridPos,
    Panel,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from monitoring import frames
from monitoring.colours import BLUE, GREY

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
NO_DATA = "–"

Query = prometheus.Dataquery
Drawn = Builder[Panel]
Size = tuple[int, int]
"""Width and height; 24 is the whole width."""
CARD, THIRD, WIDE = (4, 4), (8, 8), (24, 9)
Steps = Sequence[tuple[float | None, str]]
"""Lower bounds, None for the first, and the colours from there."""
Colours = Mapping[str, str]
"""By the text that they colour."""
Look = DynamicConfigValue


def over_time(expression: str, legend: str) -> Query:
    """A line per series."""
    return Query().expr(expression).range().legend_format(legend).datasource(DATASOURCE)


def at_once(expression: str, legend: str = "") -> Query:
    """The values at the end of the time range."""
    return Query().expr(expression).instant().legend_format(legend).datasource(DATASOURCE)


def rows(expression: str) -> Query:
    """The same, as rows of a table with a column per label."""
    return at_once(expression).format(PromQueryFormat.TABLE)


def lines(
    title: str,
    description: str,
    *queries: Query,
    size: Size = THIRD,
    unit: str = "short",
    stacked: bool = False,
) -> Drawn:
    """Curves over time, from zero."""
    panel = timeseries.Panel().title(title).description(description).datasource(DATASOURCE).grid_pos(_grid(size))
    panel.targets(_named(queries)).unit(unit).no_value(NO_DATA).min(0)
    panel.line_width(1).fill_opacity(30 if stacked else 8).show_points(kinds.VisibilityMode.AUTO).point_size(4)
    panel.legend(_legend()).tooltip(_tooltip())
    if stacked:
        panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL))
    return panel


def bars(title: str, description: str, *queries: Query, size: Size, unit: str = "short") -> Drawn:
    """Events over time: stacked bars."""
    panel = timeseries.Panel().title(title).description(description).datasource(DATASOURCE).grid_pos(_grid(size))
    panel.targets(_named(queries)).unit(unit).no_value(NO_DATA).min(0)
    panel.draw_style(kinds.GraphDrawStyle.BARS).fill_opacity(70).line_width(0)
    panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL))
    return panel.legend(_legend()).tooltip(_tooltip())


def by_iteration(
    title: str,
    description: str,
    curves: Mapping[str, str],
    *,
    size: Size = THIRD,
    unit: str = "short",
    bands: Mapping[str, tuple[str, str]] | None = None,
    line_at: float | None = None,
) -> Drawn:
    """Curves whose abscissa is the label `iteration`; `curves` has their expressions by name.

    `bands` names the lower and upper end of a curve's interval; `line_at` draws a dashed line at this height.
    """
    panel = trend.Panel().title(title).description(description).datasource(DATASOURCE).grid_pos(_grid(size))
    panel.targets(_named([rows(expression) for expression in curves.values()]))
    panel.transformations(frames.by_iteration(list(curves)))
    panel.x_field("iteration").unit(unit).decimals(3).no_value(NO_DATA)
    panel.line_width(2).fill_opacity(0).show_points(kinds.VisibilityMode.ALWAYS).point_size(8)
    panel.legend(_legend()).tooltip(_tooltip())
    panel.override_by_name("iteration", [_property("unit", "none"), _property("decimals", 0)])
    if line_at is not None:
        panel.thresholds(_thresholds([(None, "transparent"), (line_at, GREY)]))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED))
    for name, (low, high) in (bands or {}).items():
        panel.override_by_name(name, [colour := _property("color", {"mode": "fixed", "fixedColor": BLUE})])
        hidden = _property("custom.hideFrom", {"legend": True, "tooltip": False, "viz": False})
        bare = [hidden, _property("custom.lineWidth", 0), _property("custom.showPoints", "never")]
        panel.override_by_name(low, [*bare, colour])
        fill = [_property("custom.fillBelowTo", low), _property("custom.fillOpacity", 20)]
        panel.override_by_name(high, [*bare, colour, *fill])
    return panel


def number(
    title: str,
    description: str,
    *queries: Query,
    size: Size = CARD,
    unit: str = "short",
    steps: Steps = ((None, BLUE),),
    decimals: int | None = None,
    no_value: str = NO_DATA,
) -> Drawn:
    """One figure, or a few with their names."""
    panel = stat.Panel().title(title).description(description).datasource(DATASOURCE).grid_pos(_grid(size))
    panel.targets(_named(queries)).unit(unit).no_value(no_value).thresholds(_thresholds(steps))
    panel.color_mode(kinds.BigValueColorMode.VALUE).graph_mode(kinds.BigValueGraphMode.NONE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.text_mode(kinds.BigValueTextMode.VALUE_AND_NAME if len(queries) > 1 else kinds.BigValueTextMode.VALUE)
    return panel if decimals is None else panel.decimals(decimals)


def word(title: str, description: str, query: Query, *, label: str, colours: Colours, size: Size = CARD) -> Drawn:
    """The value of a label, large."""
    panel = stat.Panel().title(title).description(description).datasource(DATASOURCE).grid_pos(_grid(size))
    panel.targets(_named([query])).no_value(NO_DATA).mappings([_mapping(colours)]).thresholds(
        _thresholds(((None, BLUE),))
    )
    panel.color_mode(kinds.BigValueColorMode.BACKGROUND_SOLID).graph_mode(kinds.BigValueGraphMode.NONE)
    return panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields(f"/^{label}$/"))


def gauges(
    title: str,
    description: str,
    query: Query,
    *,
    size: Size = THIRD,
    unit: str,
    high: float | None = None,
    no_value: str,
) -> Drawn:
    """A horizontal bar per series."""
    panel = bargauge.Panel().title(title).description(description).datasource(DATASOURCE).grid_pos(_grid(size))
    panel.targets(_named([query])).unit(unit).no_value(no_value).min(0).thresholds(_thresholds(((None, BLUE),)))
    panel.orientation(kinds.VizOrientation.HORIZONTAL).display_mode(kinds.BarGaugeDisplayMode.BASIC)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return panel if high is None else panel.max(high)


def matrix(title: str, description: str, query: Query, *, row: str, column: str, size: Size, unit: str) -> Drawn:
    """A bar per value of the label `row`, a numeral, stacked by the label `column`."""
    panel = barchart.Panel().title(title).description(description).datasource(DATASOURCE).grid_pos(_grid(size))
    panel.targets(_named([query])).unit(unit).no_value(NO_DATA)
    panel.transformations(frames.matrix(row, column))
    panel.stacking(kinds.StackingMode.NORMAL).fill_opacity(70).line_width(0).show_value(kinds.VisibilityMode.NEVER)
    return panel.legend(_legend()).tooltip(_tooltip())


def timeline(title: str, description: str, query: Query, *, states: Mapping[int, tuple[str, str]], size: Size) -> Drawn:
    """A bar per series over time; `states` has the text and the colour of each value."""
    panel = statetimeline.Panel().title(title).description(description).datasource(DATASOURCE).grid_pos(_grid(size))
    results = {str(value): ValueMappingResult(text=text, color=colour) for value, (text, colour) in states.items()}
    panel.targets(_named([query])).no_value(NO_DATA).mappings([ValueMap(options=results)])
    panel.thresholds(_thresholds(((None, GREY),))).color_scheme(
        dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS)
    )
    panel.show_value(kinds.VisibilityMode.AUTO).merge_values(True).row_height(0.8).fill_opacity(80).line_width(0)
    return panel.legend(common.VizLegendOptions().show_legend(False)).tooltip(_tooltip())


def columns(
    title: str,
    description: str,
    queries: Mapping[str, Query],
    *,
    size: Size = WIDE,
    labels: Sequence[str],
    sort_by: str,
    looks: Mapping[str, Sequence[Look]] | None = None,
    no_value: str = NO_DATA,
) -> Drawn:
    """A table of `labels` and values, whose rows are joined by their common labels; `queries` names the values.

    A name that begins with "_" only brings its labels. `sort_by` descends if it begins with "-".
    """
    panel = table.Panel().title(title).description(description).datasource(DATASOURCE).grid_pos(_grid(size))
    panel.targets(_named(queries.values())).no_value(no_value).align(kinds.FieldTextAlignment.AUTO)
    panel.transformations(frames.joined(labels, list(queries))).cell_height(kinds.TableCellHeight.SM)
    for name, look in (looks or {}).items():
        panel.override_by_name(name, list(look))
    order = common.TableSortByFieldState().display_name(sort_by.removeprefix("-")).desc(sort_by.startswith("-"))
    return panel.sort_by([order])


def unit(name: str) -> list[Look]:
    return [_property("unit", name)]


def coloured(colours: Colours) -> list[Look]:
    """Text in a colour that depends on it."""
    return [_property("custom.cellOptions", {"type": "color-text"}), _property("mappings", [_mapping(colours)])]


def leading_to(title: str, url: str) -> list[Look]:
    return [_property("links", [{"title": title, "url": url}])]


def _grid(size: Size) -> GridPos:
    """The dashboard finds the place."""
    return GridPos(w=size[0], h=size[1])


def _named(queries: Iterable[Query]) -> list[Builder[Any]]:
    return [query.ref_id(chr(ord("A") + number)) for number, query in enumerate(queries)]


def _legend() -> Builder[kinds.VizLegendOptions]:
    return common.VizLegendOptions().show_legend(True).placement(kinds.LegendPlacement.BOTTOM)


def _tooltip() -> Builder[kinds.VizTooltipOptions]:
    return common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING)


def _thresholds(steps: Steps) -> Builder[Any]:
    found = [Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(found)


def _mapping(colours: Colours) -> ValueMapping:
    return ValueMap(options={word: ValueMappingResult(text=word, color=colour) for word, colour in colours.items()})


def _property(name: str, value: object) -> DynamicConfigValue:
    return DynamicConfigValue(id_val=name, value=value)
