"""What the API server checks in an object's metadata, in its own words (apimachinery of Kubernetes 1.34)."""

from __future__ import annotations

import json
import re
from calendar import monthrange
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sppo_operator.schema import JSON_TYPES, Cause, shown

STRUCTS = {
    "v1.ObjectMeta": {
        **dict.fromkeys(("name", "generateName", "namespace", "selfLink", "resourceVersion"), "string"),
        "uid": "types.UID",
        **dict.fromkeys(("generation", "deletionGracePeriodSeconds"), "int64"),
        **dict.fromkeys(("creationTimestamp", "deletionTimestamp"), "v1.Time"),
        **dict.fromkeys(("labels", "annotations"), "map[string]string"),
        "finalizers": "[]string",
        "ownerReferences": "[]v1.OwnerReference",
        "managedFields": "[]v1.ManagedFieldsEntry",
    },
    "v1.OwnerReference": {
        **dict.fromkeys(("apiVersion", "kind", "name"), "string"),
        "uid": "types.UID",
        **dict.fromkeys(("controller", "blockOwnerDeletion"), "bool"),
    },
    "v1.ManagedFieldsEntry": {
        **dict.fromkeys(("manager", "apiVersion", "fieldsType", "subresource"), "string"),
        "operation": "v1.ManagedFieldsOperationType",
        "time": "v1.Time",
        "fieldsV1": "v1.FieldsV1",
    },
}
"""Go's type of every field, by struct."""
KINDS = {"bool": bool, "int64": int, "map[string]string": dict, **dict.fromkeys(STRUCTS, dict)}
"""What JSON has to hold for a Go type; for a list a list, for the others a text."""

TIME: tuple[tuple[str, str, tuple[tuple[str, int, int], ...]], ...] = (
    ("2006", r"\d{4}", ()),
    ("-", "-", ()),
    ("01", r"(\d\d)", (("month", 1, 12),)),
    ("-", "-", ()),
    ("02", r"\d\d", ()),
    ("T", "T", ()),
    ("15", r"(\d\d?)", (("hour", 0, 23),)),
    (":", ":", ()),
    ("04", r"(\d\d)", (("minute", 0, 59),)),
    (":", ":", ()),
    ("05", r"(\d\d)(?:[.,]\d+)?", (("second", 0, 59),)),
    ("Z07:00", r"Z|[-+](\d\d):(\d\d)", (("time zone offset hour", 0, 24), ("time zone offset minute", 0, 60))),
)
"""The pieces of RFC 3339, as Go calls them, and the bounds that Go sets to their numbers."""

DNS_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_SUBDOMAIN = rf"{DNS_LABEL}(\.{DNS_LABEL})*"
QUALIFIED_NAME = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
LABEL_VALUE = f"({QUALIFIED_NAME})?"
NAME_CHARACTERS = (
    "consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)
NOT_A_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    f"an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{DNS_LABEL}')"
)
NOT_A_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{DNS_SUBDOMAIN}')"
)
NOT_A_NAME = (
    f"must {NAME_CHARACTERS} (e.g. 'MyName',  or 'my.name',  or '123-abc', "
    f"regex used for validation is '{QUALIFIED_NAME}')"
)
NOT_A_VALUE = (
    f"a valid label must be an empty string or {NAME_CHARACTERS} "
    f"(e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '{LABEL_VALUE}')"
)
ANNOTATION_BYTES = 256 * 1024


def misfit(metadata: Any) -> str | None:
    """Why the metadata does not decode, in the words of Go's JSON decoder; None if it does."""
    problems = [(go_type, _problem(value, go_type, struct, path)) for value, go_type, struct, path in _values(metadata)]
    # Go reads on after a mismatch, but not after a time that is none.
    in_order = sorted(problems, key=lambda problem: problem[0] != "v1.Time")
    return next((problem for _, problem in in_order if problem), None)


def _problem(value: Any, go_type: str, struct: str, path: str) -> str | None:
    if value is None or go_type in ("", "v1.FieldsV1"):
        return None
    if go_type == "v1.Time":
        return _mistimed(value) if isinstance(value, str) else _mismatch(value, "string", struct, path)
    kind = list if go_type.startswith("[]") else KINDS.get(go_type, str)
    return None if type(value) is kind else _mismatch(value, go_type, struct, path)


def unknown_metadata(metadata: Any) -> list[str]:
    """Paths of the fields that nobody knows."""
    return sorted(path for _, go_type, _, path in _values(metadata) if not go_type)


def _values(
    value: Any, go_type: str = "v1.ObjectMeta", struct: str = "", path: str = "metadata"
) -> Iterator[tuple[Any, str, str, str]]:
    """(value, Go type, struct, path) of the metadata and all that is in it, as Go goes through it.

    The struct is the one that holds the value; an unknown field has no type.
    """
    yield value, go_type, struct, path
    if isinstance(value, dict) and (fields := STRUCTS.get(go_type)):
        for key in sorted(value):
            yield from _values(value[key], fields.get(key, ""), go_type.removeprefix("v1."), f"{path}.{key}")
    elif isinstance(value, dict) and go_type.startswith("map"):
        for _, text in sorted(value.items()):
            yield text, "string", struct, path
    elif isinstance(value, list) and go_type.startswith("[]"):
        for index, item in enumerate(value):
            yield from _values(item, go_type.removeprefix("[]"), struct, f"{path}[{index}]")


def _mismatch(value: Any, go_type: str, struct: str, path: str) -> str:
    fields = re.sub(r"\[\d+\]", "", path).removeprefix("metadata.")
    place = f"struct field {struct}.{fields}" if struct else "value"
    number = f" {shown(value)}" if isinstance(value, float) and go_type == "int64" else ""
    return f"json: cannot unmarshal {_go_kind(value)}{number} into Go {place} of type {go_type}"


def _mistimed(text: str) -> str | None:
    """Why a text is no time."""
    rest = text
    for piece, pattern, bounds in TIME:
        found = re.match(pattern, rest, re.ASCII)
        if found is None:
            return f'parsing time {shown(text)} as "2006-01-02T15:04:05Z07:00": cannot parse {shown(rest)} as "{piece}"'
        for digits, (what, least, most) in zip(found.groups("0"), bounds, strict=True):
            if not least <= int(digits) <= most:
                return f"parsing time {shown(text)}: {what} out of range"
        rest = rest[found.end() :]
    if rest:
        return f"parsing time {shown(text)}: extra text: {shown(rest)}"
    year, month, day = map(int, text[:10].split("-"))
    return None if 1 <= day <= monthrange(year, month)[1] else f"parsing time {shown(text)}: day out of range"


def decoded(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata as stored, in the namespace `default` if it names none; a null text is an empty one."""
    kept = {"namespace": "default"} | _without_nulls(metadata)
    for field in ("labels", "annotations"):
        if field in kept:
            kept[field] = {key: text or "" for key, text in kept[field].items()}
    return kept


def _without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def metadata_causes(metadata: dict[str, Any]) -> Iterator[Cause]:
    """What is wrong, in the API server's order."""
    if prefix := metadata.get("generateName"):  # what is generated comes after a last dash
        yield from _invalid("generateName", prefix, lambda text: _no_subdomain(re.sub(r"[\x00-\x7f]-\Z", "a", text)))
    if not metadata.get("name"):
        yield Cause(field="metadata.name", message="Required value: name or generateName is required", blocking=True)
    else:
        yield from _invalid("name", metadata["name"], _no_subdomain)
    yield from _invalid("namespace", metadata["namespace"], _no_label)
    for key, value in (metadata.get("labels") or {}).items():
        yield from _invalid("labels", key, _no_qualified_name)
        yield from _invalid("labels", value or "", _no_label_value)
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        yield from _invalid("annotations", key, lambda key: _no_qualified_name(key.lower()))
    if sum(_size(key) + _size(text or "") for key, text in annotations.items()) > ANNOTATION_BYTES:
        message = f"Too long: may not be more than {ANNOTATION_BYTES} bytes"
        yield Cause(field="metadata.annotations", message=message, blocking=True)
    owners = [_without_nulls(owner or {}) for owner in metadata.get("ownerReferences") or ()]
    yield from _owner_causes(owners)
    finalizers = [finalizer or "" for finalizer in metadata.get("finalizers") or ()]
    for finalizer in finalizers:
        yield from _invalid("finalizers", finalizer, _no_qualified_name)
    if {"orphan", "foregroundDeletion"} <= set(finalizers):
        message = f"Invalid value: {shown(finalizers)}: finalizer orphan and foregroundDeletion cannot be both set"
        yield Cause(field="metadata.finalizers", message=message)


def _owner_causes(owners: list[dict[str, Any]]) -> Iterator[Cause]:
    at, controller = "metadata.ownerReferences", ""
    for owner in owners:
        version = owner.get("apiVersion", "")
        if not re.fullmatch("([^/]*/)?[^/]+", version):
            yield Cause(field=f"{at}.apiVersion", message=f"Invalid value: {shown(version)}: version must not be empty")
        for field in ("kind", "name", "uid"):
            if not owner.get(field):
                yield Cause(field=f"{at}.{field}", message='Invalid value: "": must not be empty')
        if version in ("v1", "/v1") and owner.get("kind") == "Event":
            message = f"Invalid value: {_as_go_writes(owner)}: /v1, Kind=Event is disallowed from being an owner"
            yield Cause(field=at, message=message)
        if owner.get("controller"):
            name = f"{owner.get('kind', '')}/{owner.get('name', '')}"
            if controller:
                written = ",".join(map(_as_go_writes, owners))
                message = (
                    f"Invalid value: [{written}]: Only one reference can have Controller set to true. "
                    f'Found "true" in references for {controller} and {name}'
                )
                yield Cause(field=at, message=message)
            controller = controller or name


def _as_go_writes(owner: dict[str, Any]) -> str:
    """In the order of Go's struct, whose texts are there even if empty."""
    full = dict.fromkeys(("apiVersion", "kind", "name", "uid"), "") | owner
    ordered = {field: full[field] for field in STRUCTS["v1.OwnerReference"] if field in full}
    return json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))


def _invalid(field: str, value: str, reasons: Callable[[str], Iterator[str]]) -> Iterator[Cause]:
    for reason in reasons(value):
        yield Cause(field=f"metadata.{field}", message=f"Invalid value: {shown(value)}: {reason}")


def _no_label(text: str) -> Iterator[str]:
    yield from _too_long(text, 63)
    if not re.fullmatch(DNS_LABEL, text):
        yield "must not contain dots" if re.fullmatch(DNS_SUBDOMAIN, text) else NOT_A_LABEL


def _no_subdomain(text: str) -> Iterator[str]:
    yield from _too_long(text, 253)
    if not re.fullmatch(DNS_SUBDOMAIN, text):
        yield NOT_A_SUBDOMAIN


def _no_label_value(text: str) -> Iterator[str]:
    yield from _too_long(text, 63)
    if not re.fullmatch(LABEL_VALUE, text):
        yield NOT_A_VALUE


def _no_qualified_name(text: str) -> Iterator[str]:
    """A name with an optional domain before it."""
    prefix, slash, name = text.rpartition("/")
    if "/" in prefix:
        yield f"a qualified name {NOT_A_NAME} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return
    reasons: Iterable[str]
    if slash:
        reasons = _no_subdomain(prefix) if prefix else ("must be non-empty",)
        yield from (f"prefix part {reason}" for reason in reasons)
    reasons = _too_long(name, 63) if name else ("must be non-empty",)
    yield from (f"name part {reason}" for reason in reasons)
    if not re.fullmatch(QUALIFIED_NAME, name):
        yield f"name part {NOT_A_NAME}"


def _too_long(text: str, most: int) -> Iterator[str]:
    if _size(text) > most:
        yield f"must be no more than {most} characters"


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _go_kind(value: Any) -> str:
    kind = JSON_TYPES.get(type(value), "null")
    return {"integer": "number", "boolean": "bool"}.get(kind, kind)
