"""The JSON document in SPPO_CONFIG, parsed once into the frozen dataclasses of `config`, and sections as JSON again.

Names are camelCase and decimals are strings, as in the resource. Any key that a stage does not know is refused.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from typing import Any, Literal, TypeVar

from sppo_trainer.errors import ConfigError

CONTRACT_VERSION = 1

C = TypeVar("C")
DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def parse(cls: type[C], document: str) -> C:
    """The stage's configuration from its JSON document; raises ConfigError for any key or value it does not know."""
    try:
        data = json.loads(document)
    except ValueError as error:
        raise ConfigError(f"SPPO_CONFIG is not JSON ({error}): it must hold the stage's configuration") from error
    version = data.get("contract") if isinstance(data, dict) else None
    if version != CONTRACT_VERSION:
        raise ConfigError(f"contract is {version!r}: this trainer speaks {CONTRACT_VERSION}; use an image that matches")
    return typing.cast("C", _object(cls, data, ""))


def section(config: Any) -> dict[str, Any]:
    """The section as JSON data with the resource's names: what a manifest records."""
    return {
        _key(item): _plain(getattr(config, item.name))
        for item in dataclasses.fields(config)
        if getattr(config, item.name) is not None
    }


def _object(cls: type[Any], data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigError(f"{path or 'SPPO_CONFIG'} is {_shown(data)}: give an object")
    hints = typing.get_type_hints(cls)
    by_key = {_key(item): item for item in dataclasses.fields(cls)}
    for key in data:
        if key not in by_key:
            raise ConfigError(f"{_join(path, key)} is unknown: remove it, or use one of {', '.join(sorted(by_key))}")
    for key, item in by_key.items():
        if key not in data and item.default is dataclasses.MISSING:
            raise ConfigError(f"{_join(path, key)} is missing: add it")
    values = {by_key[key].name: _value(hints[by_key[key].name], value, _join(path, key)) for key, value in data.items()}
    return cls(**values)


def _value(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):  # only `X | None`
        return None if value is None else _value(arguments[0], value, path)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{path} is {_shown(value)}: use one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{path} is {_shown(value)}: give a list")
        return tuple(_value(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return _object(typing.cast("type[Any]", hint), value, path)
    if hint is float:
        if not (isinstance(value, str) and DECIMAL.fullmatch(value)):
            raise ConfigError(f'{path} is {_shown(value)}: give a decimal number as a string, such as "0.001"')
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{path} is {_shown(value)}: give {'an integer' if hint is int else f'a {hint.__name__}'}")
    return value


def _key(item: dataclasses.Field[Any]) -> str:
    head, *rest = item.name.split("_")
    return str(item.metadata.get("key", head + "".join(word.capitalize() for word in rest)))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return section(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
