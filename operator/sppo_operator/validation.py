"""What the API server does to a manifest before it stores it, without an API server.

`admit` decodes strictly, fills in the defaults, and checks schema and CEL rules in the API server's order; a refusal
reads as `kubectl apply` prints it. Ratcheting is left out: it only matters for objects older than their CRD.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable
from typing import Any

import yaml

from sppo_operator.errors import InvalidResource
from sppo_operator.metadata import decoded, metadata_causes, misfit, unknown_metadata
from sppo_operator.schema import (
    Cause,
    duplicate_causes,
    rule_causes,
    schema_causes,
    shown,
    spporun_schema,
    unknown_fields,
    with_defaults,
)

KIND, GROUP, VERSION = "SPPORun", "sppo.dev", "v1alpha1"
MAX_NODES = 100_000
UNCHECKED = Cause(
    field="<nil>",
    message="Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)


def admit(manifest: dict[str, Any], old: dict[str, Any] | None = None) -> dict[str, Any]:
    """The object that would be stored, with all defaults.

    `old` is the stored object that the manifest would replace; without it the manifest is new. The status is the
    operator's: a manifest's own is dropped, the old object's is kept. Raises InvalidResource.
    """
    schema = spporun_schema()
    _check_decoding(manifest)
    run: dict[str, Any] = with_defaults({key: value for key, value in manifest.items() if key != "status"}, schema)
    run["metadata"] = decoded(manifest.get("metadata") or {})
    stored = with_defaults(old, schema)
    causes = [*metadata_causes(run["metadata"]), *schema_causes(run, schema), *duplicate_causes(run, schema)]
    if any(cause.blocking for cause in causes):
        causes.append(UNCHECKED)
    else:
        causes.extend(rule_causes(run, stored, schema))
    if causes:
        raise InvalidResource(_refusal(run["metadata"].get("name", ""), causes))
    return run | {"status": stored["status"]} if stored and "status" in stored else run


def parse_manifest(text: str) -> dict[str, Any]:
    """The one SPPORun that a YAML text holds, read as kubectl reads it; raises InvalidResource."""
    documents = parse_documents(text)
    if len(documents) != 1:
        raise InvalidResource(f"the manifest holds {len(documents)} documents: give exactly one {KIND}")
    check_kind(documents[0])
    return documents[0]


def parse_documents(text: str) -> list[dict[str, Any]]:
    """The objects of a YAML text, of any kind; those of a List one by one. Raises InvalidResource."""
    try:
        documents = [document for document in yaml.load_all(text, _Loader) if document is not None]
        json.dumps(documents)  # as kubectl does: dates, bytes and anchors within themselves have no place in JSON
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidResource(f"the manifest is not YAML: line {line}: {error.problem}: correct that line") from error
    except yaml.YAMLError as error:
        raise InvalidResource(f"the manifest is not YAML: {error}: save it as UTF-8 text") from error
    except RecursionError as error:
        raise InvalidResource("the manifest is nested too deeply: remove brackets or anchors") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidResource(
            f"the manifest has a value that is no JSON ({error}): remove its tag or anchor"
        ) from error
    manifests = [manifest for document in documents for manifest in _listed(document)]
    for manifest in manifests:
        if not isinstance(manifest, dict):
            raise InvalidResource(
                f"the manifest is {shown(manifest)[:60]}: give a mapping with apiVersion, kind and spec"
            )
    return manifests


def _listed(document: Any) -> list[Any]:
    """The items of a List, such as `kubectl get -o yaml` gives; of anything else itself."""
    if isinstance(document, dict) and str(document.get("kind")).endswith("List"):
        items = document.get("items")
        return items if isinstance(items, list) else [document]
    return [document]


def check_kind(manifest: dict[str, Any]) -> None:
    """Raises InvalidResource if kubectl would not send it as an SPPORun of the version that there is."""
    kind, version = manifest.get("kind"), manifest.get("apiVersion")
    remedy = f"use kind {KIND} and apiVersion {GROUP}/{VERSION}"
    for field in ("apiVersion", "kind"):
        if not manifest.get(field):
            raise InvalidResource(f"{field} not set: {remedy}")
    if (kind, version) != (KIND, f"{GROUP}/{VERSION}"):
        raise InvalidResource(f'no matches for kind "{kind}" in version "{version}": {remedy}')
    metadata = manifest.get("metadata")
    if isinstance(metadata, dict) and metadata.get("generateName") and not metadata.get("name"):
        raise InvalidResource(
            f"from {metadata['generateName']}: cannot use generate name with apply: give metadata.name"
        )


def _parts(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return itertools.chain.from_iterable(node.value)
    return node.value if isinstance(node, yaml.SequenceNode) else ()


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of kubectl's parser (5e-7 is a number, a date is text), and no key twice."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - the base class declares it so; filled in below
    bool_values = yaml.SafeLoader.bool_values | {"y": True, "n": False}

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.composed = 0
        self.sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As the base class, but no more than MAX_NODES, aliases written out: they can grow without end."""
        node = super().compose_node(parent, index)
        assert node is not None, "only called where there is one"
        self.composed += 1
        if node not in self.sizes:
            self.sizes[node] = 1 + sum(self.sizes.get(part, 0) for part in _parts(node))
        if max(self.composed, self.sizes[node]) > MAX_NODES:
            raise InvalidResource(
                f"the manifest has more than {MAX_NODES} values with its aliases written out: split it"
            )
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(None, None, "a key must be text", key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f'key "{key.value}" already set in map', key.start_mark)
            seen.add(key.value)
            if key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        value = super().construct_yaml_float(node)
        return int(value) if value.is_integer() and abs(value) < 1e21 else value  # as JSON writes it: 3.0 is 3


for _tag, _pattern, _first in (
    ("bool", r"(y|yes|on|true|n|no|off|false|Y|Yes|On|True|N|No|Off|False|YES|ON|TRUE|NO|OFF|FALSE)$", "yYoOtTnNfF"),
    ("int", r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]*|[1-9][0-9_]*)$", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("null", r"(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"<<$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _check_decoding(manifest: dict[str, Any]) -> None:
    metadata = manifest.get("metadata")
    problem = misfit(metadata)
    if problem is None:
        body = {key: value for key, value in manifest.items() if key != "metadata"}
        unknown = unknown_metadata(metadata) + sorted(unknown_fields(body, spporun_schema()))
        if not unknown:
            return
        problem = "strict decoding error: " + ", ".join(f'unknown field "{path}"' for path in unknown)
    raise InvalidResource(f'{KIND} in version "{VERSION}" cannot be handled as a {KIND}: {problem}')


def _refusal(name: str, causes: list[Cause]) -> str:
    """As kubectl prints a refusal: one cause in the line, several in a list, none twice."""
    lines = list(dict.fromkeys(map(str, causes)))
    start = f'The {KIND} "{name}" is invalid: '
    return start + lines[0] if len(lines) == 1 else "\n* ".join([start, *lines])
