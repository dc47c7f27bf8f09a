"""How Grafana turns the rows of queries into what a panel draws: its transformations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.models.dashboard import DataTransformerConfig


def by_iteration(names: Sequence[str]) -> list[DataTransformerConfig]:
    """Rows in the order of the label `iteration`, as a number."""
    return [
        _transformation("merge"),
        _as_type("iteration", "number"),
        _sorted_by("iteration"),
        _organized(dropped=(), places=(), renamed=_values(names)),
    ]


def joined(labels: Sequence[str], names: Sequence[str]) -> list[DataTransformerConfig]:
    """Rows of labels and values; values whose name begins with "_" are left out."""
    values = _values(names)
    dropped = [value for value, name in values.items() if name.startswith("_")]
    renamed = {value: name for value, name in values.items() if value not in dropped}
    return [
        _transformation("merge"),
        *(_as_type(label, "number") for label in labels if label == "iteration"),
        _organized(dropped=dropped, places=(*labels, *values), renamed=renamed),
    ]


def matrix(row: str, column: str) -> list[DataTransformerConfig]:
    """A row per value of the one label, a numeral, and a column per value of the other."""
    return [
        _as_type(row, "number"),
        _sorted_by(row),
        _as_type(row, "string"),
        _transformation("groupingToMatrix", rowField=row, columnField=column, valueField="Value", emptyValue="null"),
    ]


def _organized(*, dropped: Sequence[str], places: Sequence[str], renamed: Mapping[str, str]) -> DataTransformerConfig:
    return _transformation(
        "organize",
        excludeByName=dict.fromkeys(["Time", *dropped], True),
        indexByName={field: place for place, field in enumerate(places)},
        orderByMode="manual",
        renameByName=renamed,
    )


def _transformation(name: str, **options: object) -> DataTransformerConfig:
    return DataTransformerConfig(id_val=name, options=options)


def _as_type(field: str, kind: str) -> DataTransformerConfig:
    return _transformation("convertFieldType", fields={}, conversions=[{"targetField": field, "destinationType": kind}])


def _sorted_by(field: str) -> DataTransformerConfig:
    return _transformation("sortBy", fields={}, sort=[{"field": field, "desc": False}])


def _values(names: Sequence[str]) -> dict[str, str]:
    """What Grafana calls the values: by their query, but for one that alone has any, which may only be the first."""
    return {f"Value #{chr(ord('A') + number)}": name for number, name in enumerate(names)} | {"Value": names[0]}
