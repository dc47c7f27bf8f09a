"""Grafana's dashboards as the chart installs them: `python -m monitoring.dashboards` writes both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from monitoring import fleet, run
from monitoring.colours import RED
from monitoring.panels import DATASOURCE, Drawn

FOLDER = Path(__file__).parents[1] / "charts/sppo-operator/files/dashboards"
TAG = "sppo"
ANNOTATION_TEXTS = {"titleFormat": "{{alertname}}", "textFormat": "{{namespace}} {{run}} {{reason}}"}
"""Grafana's Prometheus data source reads them, and the SDK does not know them."""


def rendered() -> dict[str, str]:
    """The text of each dashboard by the name of its file."""
    of_run = _dashboard(run.UID, run.TITLE, run.DESCRIPTION, run.FIRING, "now-24h")
    of_run.with_variable(_variable("namespace", "label_values(sppo_run_info, namespace)"))
    of_run.with_variable(_variable("run", 'label_values(sppo_run_info{namespace="$namespace"}, run)'))
    of_fleet = _dashboard(fleet.UID, fleet.TITLE, fleet.DESCRIPTION, fleet.FIRING, "now-3h")
    of_fleet.with_variable(_all_of("namespace", "label_values(sppo_run_info, namespace)"))
    of_fleet.with_variable(_all_of("operator", "label_values(sppo_operator_info, namespace)"))
    return {
        "run.json": _text(of_run, run.contents()),
        "fleet.json": _text(of_fleet, fleet.contents()),
    }


def _dashboard(uid: str, title: str, description: str, firing: str, since: str) -> Dashboard:
    others = DashboardLink("SPPO").type(DashboardLinkType.DASHBOARDS).tags([TAG]).as_dropdown(False).keep_time(True)
    alerts = AnnotationQuery().name("Alerts").datasource(DATASOURCE).expr(firing).icon_color(RED).enable(True)
    # `type` of this builder sets which kind of data source may be chosen.
    source = DatasourceVariable("datasource").label("Data source").type("prometheus")
    return (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .time(since, "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(others)
        .annotation(alerts)
        .with_variable(source)
    )


def _variable(name: str, query: str) -> QueryVariable:
    found = QueryVariable(name).label(name.capitalize()).datasource(DATASOURCE).query(query)
    return found.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)


def _all_of(name: str, query: str) -> QueryVariable:
    everything = VariableOption(selected=True, text="All", value="$__all")
    return _variable(name, query).multi(True).include_all(True).all_value(".*").current(everything)


def _text(dashboard: Dashboard, contents: Sequence[Drawn | Row]) -> str:
    for number, part in enumerate(contents, start=1):
        if isinstance(part, Row):
            dashboard.with_row(part.id(number))
        else:
            panel = part.build()
            panel.id_val = number
            dashboard.with_panel(part)
    built = json.loads(json.dumps(dashboard.build(), cls=JSONEncoder))
    for annotation in built["annotations"]["list"]:
        annotation.update(ANNOTATION_TEXTS)
    return json.dumps(built, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in rendered().items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
