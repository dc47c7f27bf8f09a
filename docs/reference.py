"""Writes docs/reference.md from manifests/crd.yaml and from the operator's code: `make docs`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from sppo_operator import conditions, errors, events, jobs

ROOT = Path(__file__).parents[1]
Schema = dict[str, Any]

HEAD = """\
<!-- Written by `make docs` from manifests/crd.yaml: change it there. -->

# Reference of the SPPORun

`apiVersion: sppo.dev/v1alpha1`, `kind: SPPORun`, in a namespace, short name `sppo`. The same text is on a cluster:
`kubectl explain spporun.spec`. [manifests/examples](../manifests/examples) has whole manifests.

In the tables, *required* has no default, and *–* is absent unless you set it. The column *may change* says whether a
run that exists takes another value: *no* is refused by the API server, *grows* takes a larger one, *yes* applies from
the next Job, and *in part* is said field by field. A *decimal* is a number with a fraction, written as a string,
`"5e-7"`: floats do not survive every client.
"""

CONDITIONS = {
    "Succeeded": (
        "Whether the run has reached its goal; `Unknown` while it is active.",
        "RUNNING FINISHED",
    ),
    "Progressing": (
        "Whether it is getting on. The message says what runs, or what to do.",
        "RUNNING QUEUED FINISHED STOPPED SUSPENDED BLOCKED PODS_STUCK",
    ),
    "Queued": ("Whether stages wait for Kueue to admit them.", "QUEUED NOT_QUEUED"),
    "Suspended": ("Whether `spec.suspend` holds it back.", "SUSPENDED NOT_SUSPENDED"),
    "Degraded": (
        "Whether something hurts the result while the run goes on.",
        "AS_EXPECTED EVALUATION_FAILED LIKELIHOOD_FALLING",
    ),
}
FAILURES = {
    "UserFault": "a stage ended with an exit code from 64 to 78: the message says what to change; nothing is retried",
    "RetriesExhausted": "a stage failed more often than `spec.retries.limit` allows",
    "Refused": "the API server would not accept the run's Jobs, or the run could not become Jobs",
}
"""Reasons of a failed run: Succeeded and Progressing are both False."""
NAMES = {
    "annotation `sppo.dev/retry` of a run": "yours: another value lets a failed run go on from what is finished",
    f"annotation `{jobs.GENERATION_ANNOTATION}` of a Job": "`metadata.generation` of the run that it was made from",
    f"label `{jobs.RUN_LABEL}` of Jobs, pods, Services": "the run's name",
    f"label `{jobs.STAGE_LABEL}`": "prepare, generate, score, train or evaluate",
    f"label `{jobs.ITERATION_LABEL}`": "the iteration; 0 for prepare and the evaluation of the base model",
    f"label `{jobs.ATTEMPT_LABEL}`": "the attempt, from 1",
    f"labels `{jobs.QUEUE_LABEL}`, `{jobs.PRIORITY_LABEL}` of a Job": "`spec.queue`, for Kueue",
}
EXITS = {
    "0": "done",
    "64": "anything else that the user must change, such as wrong usage of the command",
    "129, 130, 143": "SIGHUP, Ctrl-C, SIGTERM: the same command goes on; a pod's stage is started again, uncharged",
    "anything else": "a bug, or a fault of the machine: the operator tries again, up to `spec.retries.limit`",
}


def reference() -> str:
    """All of docs/reference.md."""
    version = yaml.safe_load((ROOT / "manifests/crd.yaml").read_text("utf-8"))["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    properties = schema["properties"]
    frozen = frozen_fields(properties["spec"])
    parts = [
        HEAD,
        "## Name\n",
        *(f"- {one_line(rule['message'])}" for rule in rules(schema)),
        "\n## Spec\n",
        *sections("spec", properties["spec"], frozen),
        "## Status\n",
        *sections("status", properties["status"], None),
        "## What kubectl prints\n",
        table(("column", "what", "with"), map(column, version["additionalPrinterColumns"])),
        "## Conditions\n\nTheir messages end in what to do.\n",
        table(("condition", "says", "reason", "surfaces when"), condition_rows()),
        "## Events\n\nPosted once each, on the run: `kubectl events --for sppo/NAME`.\n",
        table(("reason", "type", "when"), event_rows()),
        "## Annotations and labels\n",
        table(("name", "what"), NAMES.items()),
        "## Exit codes\n\nOf stages, in `exitCode` of an attempt, and of `sppo`.\n",
        table(("code", "meaning"), exit_rows()),
    ]
    return "\n".join(parts)


def frozen_fields(spec: Schema) -> set[str]:
    """The fields that a rule compares with their old value."""
    rules = " ".join(rule["rule"] for rule in spec["x-kubernetes-validations"])
    return {f"spec.{path}" for path in re.findall(r"self\.([\w.]+)\)? == (?:has\(|size\()?oldSelf", rules)}


def sections(path: str, schema: Schema, frozen: set[str] | None) -> Iterator[str]:
    """A table for every object below `path`, outermost first; an object that was told already is linked."""
    todo, told = [(path, schema)], dict[int, str]()
    while todo:
        path, schema = todo.pop(0)
        told[id(schema)] = path
        inner = list[tuple[str, Schema]]()
        rows = list[tuple[str, ...]]()
        for name, field in schema["properties"].items():
            where = f"{path}.{name}"
            rows.append(row(path, name, field, schema, frozen, told))
            below = where + ("[]" if field["type"] == "array" else "")
            item = field["items"] if field["type"] == "array" else field
            if item.get("properties") and id(item) not in told:
                told[id(item)] = below
                inner.append((below, item))
        todo[:0] = inner
        columns = (
            ("field", "type", "description")
            if frozen is None
            else ("field", "type", "default", "may change", "description")
        )
        yield f"### {path}\n\n{schema['description']}\n"
        yield table(columns, rows)
        if said := [f"- {one_line(rule['message'])}" for rule in rules(schema)]:
            yield "Refused otherwise:\n\n" + "\n".join(said) + "\n"


def rules(schema: Schema) -> list[Schema]:
    """The rules about several fields of an object; those that freeze fields are a column of their own."""
    return [rule for rule in schema.get("x-kubernetes-validations", ()) if "oldSelf" not in rule["rule"]]


def row(
    path: str, name: str, field: Schema, schema: Schema, frozen: set[str] | None, told: dict[int, str]
) -> tuple[str, ...]:
    where = f"{path}.{name}"
    described = one_line(field.get("description", ""))
    own = () if field.get("properties") else rules(field)  # an object's rules stand at its own table
    text = " ".join([described, *(f"*{one_line(rule['message'])}.*" for rule in own)])
    kind = type_of(field, where, told)
    if frozen is None:
        return f"`{name}`", kind, text
    return f"`{name}`", kind, default(name, field, schema), change(where, field, frozen), text


def type_of(field: Schema, where: str, told: dict[int, str]) -> str:
    match field:
        case {"type": "array", "items": inner}:
            size = bounds(field.get("minItems"), field.get("maxItems"), "items")
            found = f"list of {type_of(inner, f'{where}[]', told)}{size}"
        case {"type": "object", "properties": _}:
            target = told.get(id(field), where)
            found = f"[{target.rpartition('.')[2].removesuffix('[]')}](#{anchor(target)})"
        case {"type": "object"}:
            found = "map of string" if "additionalProperties" in field else "object"
        case {"enum": values}:
            found = " \\| ".join(f"`{value}`" for value in values)
        case {"format": "date-time"}:
            found = "time in RFC 3339"
        case {"type": "string", "pattern": pattern} if "[eE]" in pattern:
            found = "decimal"
        case {"type": "string"}:
            form = f", matching `{one_line(field['pattern'])}`" if "pattern" in field else ""
            found = f"string{bounds(field.get('minLength'), field.get('maxLength'), 'characters')}{form}"
        case _:
            found = field["type"] + bounds(field.get("minimum"), field.get("maximum"), "")
    return found


def bounds(low: int | None, high: int | None, unit: str) -> str:
    if high is None:
        return ""
    if high >= 2**31 - 1:
        return f", at least {low}"
    span = f"{low} to {high}" if low is not None else f"at most {high}"
    return f", {span} {unit}".rstrip()


def default(name: str, field: Schema, schema: Schema) -> str:
    if name in schema.get("required", ()):
        return "*required*"
    if "default" not in field or field["default"] == {}:
        return "–"
    value = field["default"]
    shown = (
        f"[{', '.join(value)}]"
        if isinstance(value, list)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
    return f"`{shown}`"


def change(where: str, field: Schema, frozen: set[str]) -> str:
    parts = where.split(".")
    if any(".".join(parts[:end]) in frozen for end in range(2, len(parts) + 1)):
        return "no"
    if any("oldSelf" in rule["rule"] for rule in field.get("x-kubernetes-validations", ())):
        return "grows"
    inside = [path for path in frozen if path.startswith(f"{where}.")]
    return "in part" if inside else "yes"


def column(printed: Schema) -> tuple[str, str, str]:
    return printed["name"], one_line(printed["description"]), "`-o wide`" if printed.get("priority") else ""


def condition_rows() -> Iterator[tuple[str, ...]]:
    source = Path(conditions.__file__).read_text("utf-8")
    when = dict(re.findall(r'^[A-Z_]+ = "(\w+)"  # surfaces (?:when|while) (.+)$', source, re.MULTILINE))
    for kind, (says, reasons) in CONDITIONS.items():
        known = {getattr(conditions, name): when[getattr(conditions, name)] for name in reasons.split()}
        if kind in ("Succeeded", "Progressing"):
            known |= FAILURES
        for index, (reason, text) in enumerate(known.items()):
            first = index == 0
            yield f"`{kind}`" if first else "", says if first else "", f"`{reason}`", text


def event_rows() -> Iterator[tuple[str, str, str]]:
    yield "`StageStarted`", events.NORMAL, "a Job was made"
    merged: dict[tuple[str, str], list[str]] = {}
    for outcome, (kind, reason) in events.ENDS.items():
        merged.setdefault((reason, kind), []).append(f"`{outcome}`")
    for (reason, kind), outcomes in merged.items():
        yield f"`{reason}`", kind, f"an attempt ended as {' or '.join(outcomes)}"
    for (condition, status), (kind, reason) in events.TURNS.items():
        yield f"`{reason}`", kind, f"`{condition}` turned {status}"
    for reason in events.HELD_UP:
        yield f"`{reason}`", events.WARNING, "`Progressing` turned False with this reason"


def exit_rows() -> Iterator[tuple[str, str]]:
    """Of the trees of errors that the two packages' docstrings draw."""
    trainer = (ROOT / "trainer/sppo_trainer/errors.py").read_text("utf-8").split('"""')[1]
    codes: dict[str, list[str]] = {}
    for source, drawn in (("a stage", trainer), ("`sppo`", errors.__doc__ or "")):
        for code, text in re.findall(r"│   [├└]── \w+ +(\d\d) +(.+)", drawn):
            codes.setdefault(code, []).append(f"{source}: {text}")
    yield "0", EXITS["0"]
    yield "64", EXITS["64"]
    for code in sorted(codes):
        yield code, "; ".join(codes[code])
    for code in ("129, 130, 143", "anything else"):
        yield code, EXITS[code]


def table(columns: tuple[str, ...], rows: Any) -> str:
    lines = [" | ".join(columns), " | ".join("---" for _ in columns), *(" | ".join(cells) for cells in rows)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def anchor(path: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w-]", "", path.lower())


def one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    (ROOT / "docs/reference.md").write_text(reference(), "utf-8")
