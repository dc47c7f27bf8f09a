"""Write what the chart has from elsewhere: `make chart-files`.

files/crd.yaml is a copy, since a chart cannot reach out of its folder. The comments of values.yaml become the
descriptions of values.schema.json and the table of README.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts/sppo-operator"
MARKS = ("<!-- The table is written by `make chart-files`. -->\n", "<!-- End of the table. -->\n")
LONGEST = 60
"""Longer defaults are not shown in the table."""

FREE = ("podSecurityContext", "securityContext", "resources")
"""Values that may be taken away with null: the cluster has defaults for them."""

Value = tuple[str, ...]


def descriptions(text: str) -> dict[Value, str]:
    """What the comment right above a value says, by the value's path."""
    found: dict[Value, str] = {}
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("# "):
            comment.append(line.lstrip()[2:])
        elif key := re.match(r"( *)(\w+):", line):
            path = [(indent, name) for indent, name in path if indent < len(key[1])] + [(len(key[1]), key[2])]
            if comment:
                found[tuple(name for _, name in path)] = " ".join(comment)
            comment = []
        else:
            comment = []
    return found


def at(values: dict[str, Any], value: Value) -> Any:
    found: Any = values
    for name in value:
        found = found[name]
    return found


def node(schema: dict[str, Any], value: Value) -> dict[str, Any]:
    """The schema of a value."""
    found = schema
    for name in value:
        found = found["properties"][name]
    return found


def described(schema: dict[str, Any], texts: dict[Value, str]) -> dict[str, Any]:
    """The schema, with the descriptions first in their nodes.

    All values are required: null takes a default away, and a template without it would render something else.
    """
    for value, text in texts.items():
        found = node(schema, value)
        rest = {key: kept for key, kept in found.items() if key != "description"}
        found.clear()
        found.update({"description": text} | rest)
    for parent in {value[:-1] for value in texts}:
        names = [value[-1] for value in texts if value[:-1] == parent]
        node(schema, parent)["required"] = [name for name in names if name not in FREE]
    return schema


def table(values: dict[str, Any], schema: dict[str, Any], texts: dict[Value, str]) -> str:
    sections = {value[:length] for value in texts for length in range(1, len(value))}
    rows = ["| value | type | default | description |", "|---|---|---|---|"]
    for value, text in texts.items():
        if value not in sections:
            default = json.dumps(at(values, value))
            shown = f"`{default}`" if len(default) <= LONGEST else "see `values.yaml`"
            rows.append(f"| `{'.'.join(value)}` | {kind(schema, node(schema, value))} | {shown} | {text} |")
    return "\n".join(rows) + "\n"


def kind(schema: dict[str, Any], found: dict[str, Any]) -> str:
    if "$ref" in found:
        found = schema["definitions"][found["$ref"].removeprefix("#/definitions/")]
    if "enum" in found:
        return ", ".join(f"`{choice}`" for choice in found["enum"])
    return str(found["type"])


def files() -> dict[Path, str]:
    """The content that each of the files should have."""
    text = (CHART / "values.yaml").read_text("utf-8")
    values, texts = yaml.safe_load(text), descriptions(text)
    schema = described(json.loads((CHART / "values.schema.json").read_text("utf-8")), texts)
    readme = (CHART / "README.md").read_text("utf-8")
    before, _, rest = readme.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return {
        CHART / "files/crd.yaml": (ROOT / "manifests/crd.yaml").read_text("utf-8"),
        CHART / "values.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
        CHART / "README.md": before + MARKS[0] + table(values, schema, texts) + MARKS[1] + after,
    }


def stale() -> dict[Path, str]:
    return {path: text for path, text in files().items() if not path.exists() or path.read_text("utf-8") != text}


def main() -> None:
    for path, text in stale().items():
        path.write_text(text, "utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
