"""What the API server checks in an object's metadata, as far as it matters without one.

The syntax of labels and annotations is left to it: nothing here reads more of them than their text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sppo_operator.schema import JSON_TYPES, Cause, shown

FIELDS = frozenset(
    {
        *("name", "generateName", "namespace", "labels", "annotations", "finalizers", "ownerReferences"),
        *("uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "managedFields"),
        *("deletionTimestamp", "deletionGracePeriodSeconds"),
    }
)
DNS_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_SUBDOMAIN = rf"{DNS_LABEL}(\.{DNS_LABEL})*"


def misfit(metadata: Any) -> str | None:
    """Why the metadata does not decode, in the words of Go's JSON decoder; None if it does."""
    if not isinstance(metadata, dict):
        return f"cannot unmarshal {_go_kind(metadata)} into Go value of type v1.ObjectMeta"
    texts = [(field, metadata.get(field)) for field in ("name", "namespace")]
    for field in ("labels", "annotations"):
        table = metadata.get(field) or {}
        if not isinstance(table, dict):
            return (
                f"cannot unmarshal {_go_kind(table)} into Go struct field ObjectMeta.{field} of type map[string]string"
            )
        texts.extend((field, text) for text in table.values())
    for field, text in texts:
        if not isinstance(text, str | None):
            return f"cannot unmarshal {_go_kind(text)} into Go struct field ObjectMeta.{field} of type string"
    return None


def decoded(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata as stored, in the namespace `default` if it names none; a null text is an empty one."""
    kept = {"namespace": "default"} | {key: value for key, value in metadata.items() if value is not None}
    for field in ("labels", "annotations"):
        if field in kept:
            kept[field] = {key: text or "" for key, text in kept[field].items()}
    return kept


def metadata_causes(metadata: dict[str, Any]) -> Iterator[Cause]:
    """What is wrong with name and namespace, which become parts of paths and of other names."""
    name, namespace = metadata.get("name", ""), metadata["namespace"]
    if not name:
        yield Cause(field="metadata.name", message="Required value: name or generateName is required", blocking=True)
    elif not re.fullmatch(DNS_SUBDOMAIN, name):
        yield Cause(
            field="metadata.name",
            message=f"Invalid value: {shown(name)}: a lowercase RFC 1123 subdomain must consist of lower case "
            "alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character "
            f"(e.g. 'example.com', regex used for validation is '{DNS_SUBDOMAIN}')",
        )
    if not re.fullmatch(DNS_LABEL, namespace):
        yield Cause(
            field="metadata.namespace",
            message=f"Invalid value: {shown(namespace)}: a lowercase RFC 1123 label must consist of lower case "
            "alphanumeric characters or '-', and must start and end with an alphanumeric character "
            f"(e.g. 'my-name',  or '123-abc', regex used for validation is '{DNS_LABEL}')",
        )


def _go_kind(value: Any) -> str:
    kind = JSON_TYPES.get(type(value), "null")
    return {"integer": "number", "boolean": "bool"}.get(kind, kind)
