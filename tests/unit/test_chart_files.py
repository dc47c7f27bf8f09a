"""The chart's values are documented and described, each once; none of this needs Helm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from chart_files import CHART, Value, descriptions, node, stale

TEXT = (CHART / "values.yaml").read_text()
VALUES = yaml.safe_load(TEXT)
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEXTS = descriptions(TEXT)
OPEN = {
    ("properties", "affinity", "properties", "nodeAffinity"),
    ("properties", "affinity", "properties", "podAffinity"),
    ("properties", "env", "items", "properties", "valueFrom"),
    ("properties", "resources", "properties", "claims", "items"),
    ("properties", "global"),
}
"""Objects of Kubernetes that the API server checks, and what parent charts share."""


def paths(values: Any, above: Value = ()) -> Iterator[Value]:
    if isinstance(values, dict):
        for name, value in values.items():
            yield (*above, name)
            yield from paths(value, (*above, name))


def in_schema(schema: dict[str, Any], above: Value = ()) -> Iterator[Value]:
    """The values that the schema describes, as deep as it describes some one by one."""
    for name, found in schema.get("properties", {}).items():
        yield (*above, name)
        yield from in_schema(found, (*above, name))


def nodes(found: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if isinstance(found, dict):
        yield above, found
        for name, value in found.items():
            yield from nodes(value, (*above, name))


def sections() -> set[Value]:
    """Values that hold other documented values."""
    return {value[:length] for value in TEXTS for length in range(1, len(value))}


def test_copies_are_up_to_date() -> None:
    assert [path.name for path in stale()] == [], "run make chart-files"


@pytest.mark.parametrize("value", [*paths(VALUES)], ids=".".join)
def test_every_value_is_documented_itself_or_within_a_default_that_is(value: Value) -> None:
    within = [value[:length] for length in range(1, len(value))]
    assert value in TEXTS or any(above in TEXTS and above not in sections() for above in within)


@pytest.mark.parametrize("value", TEXTS, ids=".".join)
def test_every_documented_value_is_in_the_schema_with_a_description_of_its_own(value: Value) -> None:
    found = node(SCHEMA, value)
    assert found["description"] == TEXTS[value]
    assert found.keys() & {"type", "enum", "$ref"}


def test_the_schema_has_no_value_that_values_yaml_lacks() -> None:
    known = {*paths(VALUES), ("global",)}
    optional = {
        value for value in in_schema(SCHEMA) if value[0] in ("resources", "affinity") or "ecurityContext" in value[0]
    }
    assert {*in_schema(SCHEMA)} - known - optional == set()


def test_objects_of_the_schema_are_closed() -> None:
    opened = {
        path for path, found in nodes(SCHEMA) if found.get("type") == "object" and "additionalProperties" not in found
    }
    assert opened == OPEN


def test_definitions_are_described_and_used() -> None:
    used = {
        found["$ref"].removeprefix("#/definitions/") for _, found in nodes(SCHEMA) if isinstance(found.get("$ref"), str)
    }
    assert used == SCHEMA["definitions"].keys()
    assert all(found["description"] for found in SCHEMA["definitions"].values())


def test_the_defaults_satisfy_the_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(VALUES)


def test_comments_are_read_as_descriptions() -> None:
    text = "# Title\n\n# One\n# line.\na: 1\nb:\n  # Inner.\n  c: {}\n  d: 2\n# Last.\ne:\n- # no key: here\n  f: 1\n"
    assert descriptions(text) == {("a",): "One line.", ("b", "c"): "Inner.", ("e",): "Last."}
