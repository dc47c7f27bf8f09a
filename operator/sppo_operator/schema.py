"""The SPPORun's schema, and what it says about a manifest: unknown fields, defaults, bounds and rules.

The schema is the CRD's own, and the messages are those of the API server (kube-openapi's validation errors and
apimachinery's field errors, as of Kubernetes 1.34), so that a manifest is refused in the same words everywhere.
"""

from __future__ import annotations

import copy
import functools
import importlib.resources
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError, validators

from sppo_operator import cel

Schema = dict[str, Any]

JSON_TYPES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
MESSAGES = {
    "type": 'Invalid value: "{actual}": {path} in body must be of type {limit}: "{actual}"',
    "required": "Required value",
    "enum": "Unsupported value: {value}: supported values: {limit}",
    "pattern": "Invalid value: {value}: {path} in body should match '{limit}'",
    "minimum": "Invalid value: {value}: {path} in body should be greater than or equal to {limit}",
    "maximum": "Invalid value: {value}: {path} in body should be less than or equal to {limit}",
    "minLength": "Invalid value: {value}: {path} in body should be at least {limit} chars long",
    "maxLength": "Too long: may not be more than {limit} bytes",
    "minItems": "Invalid value: {size}: {path} in body should have at least {limit} items",
    "maxItems": "Too many: {size}: must have at most {limit} items",
    "maxProperties": "Too many: {size}: must have at most {limit} items",
}
BLOCKING = frozenset({"type", "required", "enum", "maxLength", "maxItems", "maxProperties"})
"""After one of these the API server leaves the CEL rules out: their variables might not have the declared types."""

REASONS = {"FieldValueForbidden": "Forbidden", "FieldValueRequired": "Required value"}


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One reason for refusing a manifest."""

    field: str
    message: str
    blocking: bool = False

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


@functools.cache
def spporun_schema() -> Schema:
    """The OpenAPI schema of sppo.dev/v1alpha1 SPPORun, from the CRD that the cluster gets."""
    text = importlib.resources.files("sppo_operator").joinpath("crd.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser is ten times faster
    crd = yaml.load(text, loader)  # noqa: S506 - both are safe
    schema: Schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def children(value: Any, schema: Schema, path: str) -> Iterator[tuple[str | int, Any, Schema | None, str]]:
    """(key, value, schema, path) of what an object or list holds; the schema of an unknown field is None."""
    if isinstance(value, dict):
        properties, additional = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            yield key, item, properties.get(key, additional), f"{path}.{key}" if path else key
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield index, item, schema.get("items"), f"{path}[{index}]"


def unknown_fields(value: Any, schema: Schema, path: str = "") -> Iterator[str]:
    """Paths of the fields that the schema does not know; what an open fragment holds is known."""
    for _, item, child, child_path in children(value, schema, path):
        if child is None and schema.get("x-kubernetes-preserve-unknown-fields"):
            continue
        if child is None and isinstance(value, dict):
            yield child_path
        else:
            yield from unknown_fields(item, child or {}, child_path)


def with_defaults(value: Any, schema: Schema | None) -> Any:
    """A copy of the value with the schema's defaults; a null counts as absent, as no field is nullable."""
    if schema is None or not isinstance(value, dict | list):
        return copy.deepcopy(value)
    if isinstance(value, list):
        return [with_defaults(item, schema.get("items")) for item in value]
    known = {key: child for key, _, child, _ in children(value, schema, "")}
    kept = {key: item for key, item in value.items() if item is not None or known[key] is None}
    for key, child in schema.get("properties", {}).items():
        if key not in kept and "default" in child:
            kept[key], known[key] = child["default"], child
    return {key: with_defaults(item, known[key]) for key, item in kept.items()}


def schema_causes(value: Any, schema: Schema) -> Iterator[Cause]:
    """What is out of bounds, by JSON Schema."""
    for error in _Validator(schema).iter_errors(value):
        keyword, limit = str(error.validator), error.validator_value
        path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in error.absolute_path)[1:]
        message = MESSAGES[keyword].format(
            path=path,
            value=shown(error.instance),
            actual=JSON_TYPES.get(type(error.instance), "null"),
            size=len(error.instance) if isinstance(error.instance, dict | list) else 0,
            limit=", ".join(map(shown, limit)) if keyword == "enum" else limit,
        )
        yield Cause(field=path, message=message, blocking=keyword in BLOCKING)


def duplicate_causes(value: Any, schema: Schema, path: str = "") -> Iterator[Cause]:
    """Items that a list of type set or map holds twice."""
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys", [])
    seen: list[Any] = []
    for _, item, child, child_path in children(value, schema, path):
        if kind in ("set", "map") and isinstance(value, list):
            identity = (
                {key: item[key] for key in keys if key in item} if kind == "map" and isinstance(item, dict) else item
            )
            if seen.count(identity) == 1:  # a third of the same is not reported again
                yield Cause(field=child_path, message=f"Duplicate value: {shown(identity)}")
            seen.append(identity)
        if child is not None:
            yield from duplicate_causes(item, child, child_path)


def rule_causes(value: Any, old: Any, schema: Schema, path: str = "") -> Iterator[Cause]:
    """CEL rules that do not hold; those about oldSelf count where there is an old value (in lists there is none)."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" in rule["rule"] and old is None:
            continue
        field, message = path, rule["message"]
        try:
            if cel.holds(rule["rule"], {"self": value, "oldSelf": old}):
                continue
            field += rule.get("fieldPath", "")
        except cel.CELError:  # the C++ runtime words its errors differently; no rule can have another one than this
            message = f"type conversion error from 'string' to 'double' evaluating rule: {message}"
        label = REASONS.get(rule.get("reason"), f'Invalid value: "{schema["type"]}"')
        yield Cause(field=field.removeprefix("."), message=f"{label}: {message}")
    for key, item, child, child_path in children(value, schema, path):
        if child is not None:
            old_item = old.get(key) if isinstance(value, dict) and isinstance(old, dict) else None
            yield from rule_causes(item, old_item, child, child_path)


def shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _required(validator: Any, names: list[str], instance: Any, _: Schema) -> Iterator[ValidationError]:
    """As jsonschema's, but the error's path ends in the missing field."""
    if validator.is_type(instance, "object"):
        yield from (ValidationError("", path=[name]) for name in names if name not in instance)


def _pattern(validator: Any, pattern: str, instance: Any, schema: Schema) -> Iterator[ValidationError]:
    """By RE2, as in the API server (Python's `$` also matches before a last newline), and only at a legal length."""
    if validator.is_type(instance, "string"):
        legal = schema.get("minLength", 0) <= len(instance) <= schema.get("maxLength", len(instance))
        if legal and not cel.matches(instance, pattern):
            yield ValidationError("")


_Validator: Any = validators.extend(  # type: ignore[no-untyped-call]  # its stubs leave it out
    Draft202012Validator, {"required": _required, "pattern": _pattern}
)
