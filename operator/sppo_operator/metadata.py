"""What the API server checks in an object's metadata, in its own words (apimachinery of Kubernetes 1.34)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sppo_operator.schema import JSON_TYPES, Cause, shown

FIELDS = frozenset(
    {
        *("name", "generateName", "namespace", "labels", "annotations", "finalizers", "ownerReferences"),
        *("uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "managedFields"),
        *("deletionTimestamp", "deletionGracePeriodSeconds"),
    }
)
GO_TYPES: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("name", "generateName", "namespace", "resourceVersion", "creationTimestamp"), (str, "string")),
    "uid": (str, "types.UID"),
    "generation": (int, "int64"),
    **dict.fromkeys(("labels", "annotations"), (dict, "map[string]string")),
    "finalizers": (list, "[]string"),
    "ownerReferences": (list, "[]v1.OwnerReference"),
}
ITEM_TYPES: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("labels", "annotations", "finalizers"), (str, "string")),
    "ownerReferences": (dict, "v1.OwnerReference"),
}
OWNER_TYPES = {"apiVersion": "string", "kind": "string", "name": "string", "uid": "types.UID"}
TIME = (
    *(("2006", r"\d{4}"), ("-", "-"), ("01", r"\d\d"), ("-", "-"), ("02", r"\d\d"), ("T", "T")),
    *(("15", r"\d\d?"), (":", ":"), ("04", r"\d\d"), (":", ":"), ("05", r"\d\d([.,]\d+)?")),
    ("Z07:00", r"Z|[-+]\d\d:\d\d"),
)
"""The pieces of RFC 3339, as Go calls them."""

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
    if not isinstance(metadata, dict):
        return f"json: cannot unmarshal {_go_kind(metadata)} into Go value of type v1.ObjectMeta"
    for field, (kind, go_type) in GO_TYPES.items():
        value = metadata.get(field)
        if not isinstance(value, kind | None):
            return _mismatch(value, f"ObjectMeta.{field}", go_type)
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            item_kind, item_type = ITEM_TYPES[field]
            if not isinstance(item, item_kind | None):
                return _mismatch(item, f"ObjectMeta.{field}", item_type)
    for owner in metadata.get("ownerReferences") or ():
        for field, go_type in OWNER_TYPES.items():
            if not isinstance((owner or {}).get(field), str | None):
                return _mismatch(owner[field], f"OwnerReference.ownerReferences.{field}", go_type)
    created = metadata.get("creationTimestamp")
    return None if created is None else _mistimed(created)


def _mismatch(value: Any, field: str, go_type: str) -> str:
    return f"json: cannot unmarshal {_go_kind(value)} into Go struct field {field} of type {go_type}"


def _mistimed(text: str) -> str | None:
    """Why a text is no time; days and months beyond the calendar are left to the API server."""
    rest = text
    for piece, pattern in TIME:
        found = re.match(pattern, rest, re.ASCII)
        if found is None:
            return f'parsing time {shown(text)} as "2006-01-02T15:04:05Z07:00": cannot parse {shown(rest)} as "{piece}"'
        rest = rest[found.end() :]
    return f"parsing time {shown(text)}: extra text: {shown(rest)}" if rest else None


def decoded(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata as stored, in the namespace `default` if it names none; a null text is an empty one."""
    kept = {"namespace": "default"} | {key: value for key, value in metadata.items() if value is not None}
    for field in ("labels", "annotations"):
        if field in kept:
            kept[field] = {key: text or "" for key, text in kept[field].items()}
    return kept


def metadata_causes(metadata: dict[str, Any]) -> Iterator[Cause]:
    """What is wrong, in the API server's order."""
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
    for owner in metadata.get("ownerReferences") or ():
        for field in OWNER_TYPES:
            if not (owner or {}).get(field):
                what = "version must" if field == "apiVersion" else "must"
                yield Cause(
                    field=f"metadata.ownerReferences.{field}", message=f'Invalid value: "": {what} not be empty'
                )
    for finalizer in metadata.get("finalizers") or ():
        yield from _invalid("finalizers", finalizer or "", _no_qualified_name)


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
