"""The resource and the trainer's configuration agree field by field: names, types, enums, defaults, required fields."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

import pytest
from sppo_operator.schema import Schema, spporun_schema
from sppo_trainer import config, config_document

SPEC: Schema = spporun_schema()["properties"]["spec"]["properties"]
OPERATORS_OWN = {"model.tokenSecret", "preference.judge.apiKeySecret", "evaluation.parallel"}
"""Fields that no stage is told."""
MODEL_ONLY = {"systemPrompt"}
"""A preference model has no system prompt, though the trainer reads both kinds of model into one class."""


def sections(cls: type[Any], schema: Schema, path: str) -> typing.Iterator[tuple[str, type[Any], Schema]]:
    """The dataclass at each object of the schema, the section itself and all below it."""
    yield path, cls, schema
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        inner, key = bare(hints[item.name]), config_document._key(item)
        if dataclasses.is_dataclass(inner) and key in schema["properties"]:
            child = schema["properties"][key]
            yield from sections(typing.cast("type[Any]", inner), child.get("items", child), f"{path}.{key}")


def bare(hint: Any) -> Any:
    """X of `X | None` and of `tuple[X, ...]`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    return bare(arguments[0]) if origin in (types.UnionType, typing.Union, tuple) else hint


PAIRS = [
    found
    for name, cls in (
        ("model", config.Model),
        ("prompts", config.Prompts),
        ("preference", config.Preference),
        ("objective", config.Objective),
        ("generation", config.Generation),
        ("training", config.Training),
        ("evaluation", config.Evaluation),
    )
    for found in sections(cls, SPEC[name], name)
]
each_section = pytest.mark.parametrize(("path", "cls", "schema"), PAIRS, ids=[path for path, _, _ in PAIRS])


def trainers_fields(cls: type[Any], path: str) -> dict[str, dataclasses.Field[Any]]:
    fields = {config_document._key(item): item for item in dataclasses.fields(cls)}
    is_preference_model = cls is config.Model and path != "model"
    return {key: item for key, item in fields.items() if not (is_preference_model and key in MODEL_ONLY)}


@each_section
def test_the_names_are_the_same(path: str, cls: type[Any], schema: Schema) -> None:
    names = {name for name in schema["properties"] if f"{path}.{name}".removeprefix("evaluation.") not in OPERATORS_OWN}
    names -= {"parallel"} if path == "evaluation" else set()
    assert names == set(trainers_fields(cls, path))


@each_section
def test_required_is_what_has_no_default(path: str, cls: type[Any], schema: Schema) -> None:
    required = {key for key, item in trainers_fields(cls, path).items() if item.default is dataclasses.MISSING}
    assert set(schema.get("required", ())) == required


@each_section
def test_the_defaults_are_the_same(path: str, cls: type[Any], schema: Schema) -> None:
    for key, item in trainers_fields(cls, path).items():
        default = schema["properties"][key].get("default")
        if item.default in (None, (), dataclasses.MISSING):
            assert default is None, key
        elif isinstance(item.default, float):
            assert isinstance(default, str), key
            assert float(default) == item.default, key
        else:
            assert (tuple(default) if isinstance(default, list) else default) == item.default, key


@each_section
def test_the_types_and_enums_are_the_same(path: str, cls: type[Any], schema: Schema) -> None:
    hints = typing.get_type_hints(cls)
    for key, item in trainers_fields(cls, path).items():
        field, hint = schema["properties"][key], bare(hints[item.name])
        element = field.get("items", field)
        if typing.get_origin(hint) is typing.Literal:
            assert tuple(element["enum"]) == typing.get_args(hint), key
        elif hint is float:
            assert (element["type"], "pattern" in element) == ("string", True), key
        else:
            kinds = {str: "string", int: "integer", bool: "boolean"}
            assert element["type"] == kinds.get(hint, "object"), key


@pytest.mark.parametrize("text", ["0", "1", "0.001", "5e-7", "1E+3", "0.0000001"])
def test_a_decimal_of_the_resource_is_one_of_the_trainer(text: str) -> None:
    assert config_document.DECIMAL.fullmatch(text)
