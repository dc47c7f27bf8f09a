"""A manifest is judged without a cluster as the API server judges it: bad_manifests.yaml, and the schema itself."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from manifest_table import GOOD, TABLE, merged, refusal
from sppo_operator import cel
from sppo_operator.errors import InvalidResource
from sppo_operator.schema import Schema, spporun_schema
from sppo_operator.validation import admit, parse_documents, parse_manifest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "manifests" / "examples").glob("*.yaml"))


def judge(case: dict[str, Any]) -> dict[str, Any]:
    if "text" in case:
        return admit(parse_manifest(case["text"]))
    old = admit(merged(GOOD, case["old"])) if "old" in case else None
    return admit(merged(GOOD, case["patch"]), old)


def cases(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", TABLE[kind], ids=[case["id"] for case in TABLE[kind]])


def nodes(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every schema within a schema, with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from nodes(schema[keyword], f"{path}.{keyword}")


NODES = [(path, node) for path, node in nodes(spporun_schema(), "SPPORun") if path != "SPPORun.metadata"]
RULES = {rule["message"]: rule["rule"] for _, node in NODES for rule in node.get("x-kubernetes-validations", ())}


@cases("bad")
def test_a_bad_manifest_is_refused_in_the_words_of_the_api_server(case: dict[str, Any]) -> None:
    with pytest.raises(InvalidResource) as caught:
        judge(case)
    assert str(caught.value) == refusal(case)


@cases("accepted")
def test_a_manifest_at_the_bounds_is_accepted(case: dict[str, Any]) -> None:
    run = judge(case)
    assert admit(run) == run, "what was stored can be stored again"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_accepted_and_opens_with_what_it_needs(path: Path) -> None:
    text = path.read_text("utf-8")
    admit(parse_manifest(text))
    opening = text.split("\napiVersion:")[0]
    assert all(line.startswith("#") for line in opening.splitlines())
    assert "# Needs: " in opening
    assert "# Change: " in opening


@pytest.mark.parametrize("message", RULES)
def test_every_rule_is_broken_by_a_case(message: str) -> None:
    assert any(message in refusal(case) for case in TABLE["bad"])


def test_every_rule_holds_in_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    held: set[str] = set()

    def recording(expression: str, variables: dict[str, Any], holds: Any = cel.holds) -> bool:
        outcome: bool = holds(expression, variables)
        held.update({expression} if outcome else ())
        return outcome

    monkeypatch.setattr(cel, "holds", recording)
    for case in TABLE["accepted"]:
        judge(case)
    assert set(RULES.values()) - held == set()


def test_defaults_fill_what_is_absent_and_change_neither_input_nor_schema() -> None:
    manifest, schema = copy.deepcopy(GOOD), copy.deepcopy(spporun_schema())
    run = admit(manifest)
    run["spec"]["evaluation"]["against"].clear()
    assert (manifest, spporun_schema()) == (GOOD, schema)
    assert admit(manifest)["spec"]["evaluation"] == {"samples": 1, "against": ["Base", "Previous"], "parallel": True}
    assert admit(manifest)["spec"]["stages"]["train"] == {"workers": 1, "processesPerWorker": 1}
    assert admit(manifest)["metadata"] == {"name": "good", "namespace": "default"}


def test_the_status_is_the_operators() -> None:
    stored = admit(GOOD) | {"status": {"phase": "Training"}}
    manifest = GOOD | {"status": {"phase": "Succeeded"}}
    assert "status" not in admit(manifest)
    assert admit(manifest, stored)["status"] == {"phase": "Training"}


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("5e-7", 5e-7),
        ("1e3", 1000),
        ("3.0", 3),
        (".5", 0.5),
        ("010", 8),
        ("0x1F", 31),
        ("1_000", 1000),
        ("yes", True),
        ("n", False),
    ]
    + [(text, text) for text in ("2026-01-31", "1:30", "1.2.3", "'5'", "hf://a/b")],
)
def test_a_scalar_means_what_it_means_to_kubectl(scalar: str, value: Any) -> None:
    manifest = parse_manifest(f"{{apiVersion: sppo.dev/v1alpha1, kind: SPPORun, spec: {scalar}}}")
    expected = scalar.strip("'") if isinstance(value, str) else value
    assert (manifest["spec"], type(manifest["spec"])) == (expected, type(expected))


NO_JSON = {
    "deep": ("[" * 3000, "the manifest is nested too deeply: remove brackets or anchors"),
    "number in words": ("spec: !!int x", "the manifest has a value that is no JSON .*: remove its tag or anchor"),
    "truth in words": ("spec: !!bool x", "the manifest has a value that is no JSON"),
    "bytes": ("spec: !!binary aGk=", "the manifest has a value that is no JSON .*bytes"),
    "date": ("spec: !!timestamp 2026-01-31", "the manifest has a value that is no JSON .*date"),
    "anchor within itself": ("spec: &a {model: [*a]}", "the manifest has a value that is no JSON .Circular"),
}


@pytest.mark.parametrize(("text", "said"), NO_JSON.values(), ids=NO_JSON)
def test_yaml_that_is_no_json_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidResource, match=said):
        parse_manifest(text)


def growing(levels: int, item: str) -> str:
    """Ten times as many values with every level, if aliases are written out."""
    lines = [f"a{level}: &a{level} {item.format(level - 1)}" for level in range(1, levels + 1)]
    return "\n".join(["a0: &a0 {k: v}", *lines])


ENDLESS = {
    "lists of lists": growing(9, "[*a{0}" + ", *a{0}" * 9 + "]"),
    "mappings merged": growing(9, "{{<<: [*a{0}" + ", *a{0}" * 9 + "]}}"),
    "many documents": "--- 1\n" * 100_001,
}


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_values_without_end_are_refused(text: str) -> None:
    with pytest.raises(InvalidResource, match="more than 100000 values with its aliases written out: split it"):
        parse_manifest(text)


def test_aliases_mean_what_they_mean_to_kubectl() -> None:
    text = "{apiVersion: sppo.dev/v1alpha1, kind: SPPORun, metadata: &a {name: x}, spec: {<<: *a, again: [*a, *a]}}"
    assert parse_manifest(text)["spec"] == {"name": "x", "again": [{"name": "x"}, {"name": "x"}]}


@pytest.mark.parametrize("kind", [("v1", "List"), ("sppo.dev/v1alpha1", "SPPORunList")], ids=lambda kind: kind[1])
def test_the_items_of_a_list_are_read_one_by_one(kind: tuple[str, str]) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod"}
    text = json.dumps({"apiVersion": kind[0], "kind": kind[1], "items": [GOOD, pod], "metadata": {}})
    assert parse_documents(f"{text}\n---\n{json.dumps(pod)}") == [GOOD, pod, pod]


def test_annotations_have_room_for_256_kib() -> None:
    def annotated(size: int) -> dict[str, Any]:
        return merged(GOOD, {"metadata": {"annotations": {"a": "x" * (size - len("a"))}}})

    admit(annotated(256 * 1024))
    with pytest.raises(
        InvalidResource, match=r"\* metadata.annotations: Too long: may not be more than 262144 bytes\n"
    ):
        admit(annotated(256 * 1024 + 1))


def unbounded(node: Schema) -> bool:
    """Whether a value of the schema could be of any size."""
    match node["type"]:
        case "string":
            return "maxLength" not in node and "enum" not in node
        case "integer":
            return not {"minimum", "maximum", "format"} <= node.keys()
        case "array":
            return not {"maxItems", "x-kubernetes-list-type"} <= node.keys()
        case "object":
            is_open = "additionalProperties" in node or node.get("x-kubernetes-preserve-unknown-fields", False)
            return is_open and "maxProperties" not in node
    return bool(node["type"] != "boolean")


def test_every_field_is_described() -> None:
    assert [path for path, node in NODES if len(node.get("description", "")) < 5] == []


def test_every_field_is_bounded() -> None:
    assert [path for path, node in NODES if unbounded(node)] == []


def largest(schema: Schema) -> Any:
    """The value that takes the most room as JSON; keys of a map, which a schema cannot bound, have 32 characters."""
    match schema["type"]:
        case "string":
            return max(schema.get("enum", []), key=len, default="x" * schema.get("maxLength", 0))
        case "integer":
            return schema["maximum"]
        case "boolean":
            return False
        case "array":
            return [largest(schema["items"])] * schema["maxItems"]
        case "object" if "additionalProperties" in schema:
            return {f"{index:032}": largest(schema["additionalProperties"]) for index in range(schema["maxProperties"])}
    return {name: largest(child) for name, child in schema["properties"].items()}


def test_the_largest_status_stays_below_256_kib() -> None:
    status = largest(spporun_schema()["properties"]["status"])
    iteration = status["iterations"][0]
    stages = iteration.pop("stages")
    # As the description of iterations says: 0, which has two stages, and the last 4, which have four, keep them.
    kept = [iteration | {"stages": stages[:count]} for count in (2, 4, 4, 4, 4)]
    status["iterations"] = kept + [iteration] * (101 - len(kept))
    assert len(json.dumps(status, separators=(",", ":"))) < 256 * 1024


def test_the_package_reads_the_crd_that_the_cluster_gets() -> None:
    link = ROOT / "operator" / "sppo_operator" / "crd.yaml"
    assert link.is_symlink()
    assert not Path(link.readlink()).is_absolute()
    assert link.resolve() == ROOT / "manifests" / "crd.yaml"


def test_validation_needs_neither_the_trainer_nor_the_network() -> None:
    program = (
        "import sys, sppo_operator.validation; sys.exit(bool({'torch', 'sppo_trainer', 'socket'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
