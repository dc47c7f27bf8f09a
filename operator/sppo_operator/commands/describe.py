"""`sppo describe`: one screen about a run that answers what happened, whose fault it is, and what to do next."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sppo_operator.commands.board import MARKS, PHASES
from sppo_operator.commands.cluster import event_time
from sppo_operator.commands.explain import Explanation, explanation
from sppo_operator.commands.overview import (
    Resource,
    has_ended,
    shown_records,
    shown_status,
    states_of,
    step_that_matters,
)
from sppo_operator.commands.source import Object, Source, Wanted
from sppo_operator.commands.stage_logs import readable
from sppo_operator.commands.tables import iterations, printable
from sppo_operator.decide import Outcome, Stage, Step
from sppo_operator.errors import UserError
from sppo_operator.facts import Attempt, Records, in_order, seconds_between, timestamp
from sppo_operator.status import policies_of
from sppo_operator.summary import duration

LOG_LINES = 15
SHOWN_EVENTS = 10
TRUE_IS_BAD = ("Degraded", "Suspended", "Queued")
OUTCOME_STYLES = {
    Outcome.SUCCEEDED: "green",
    Outcome.RUNNING: "cyan",
    Outcome.USER_FAULT: "red",
    Outcome.FAILED: "red",
}


async def describe(source: Source, console: Console, now: datetime) -> None:
    resource = await source.resource()
    told = explanation(source, resource, now)
    records = shown_records(resource)
    console.print(Group(*_explained(told)))
    _section(console, "Run", _facts(resource, now))
    _section(console, "Conditions", _conditions(resource, told, now))
    _section(console, "Attempts", _attempts(resource, records, now))
    if any(record.metrics for step, record in records.items() if step.stage is Stage.EVALUATE):
        console.print()
        console.print(iterations(records, console.width))
    if policies := policies_of(shown_status(resource)):
        places = [(f"iteration {number}", source.place_of_model(number, place)) for number, place in policies.items()]
        _section(console, "Models", _pairs(places))
    await _print_events(source, console, now)
    if told.colour == "red" or not has_ended(resource) or "GivenUp" in states_of(resource).values():
        await _print_log(source, console, resource)


def _explained(told: Explanation) -> Iterator[RenderableType]:
    yield Text(printable(told.headline).plain, f"bold {told.colour}")
    if told.reason:
        yield Padding(printable(told.reason), (1, 0, 0, 2), expand=False)
    if told.fault:
        yield Padding(printable(told.fault), (1, 0, 0, 0), expand=False)
    if told.next:
        yield Text("")
    for line in told.next:
        # A command stays in one line, or it could not be copied.
        yield Text(f"  {line}", "bold", no_wrap=True, overflow="ignore") if line.startswith("$ ") else printable(line)


def _section(console: Console, title: str, body: RenderableType | None) -> None:
    if body is not None:
        console.print()
        console.print(Text(title, "bold"))
        console.print(Padding(body, (0, 0, 0, 2), expand=False))


def _facts(resource: Resource, now: datetime) -> Table:
    status, spec = shown_status(resource), resource["spec"]
    phase = status.get("phase", "New")
    rows: list[tuple[str, Text]] = [("phase", Text(phase, PHASES.get(phase, "bold cyan")))]
    pairs = {
        "iteration": status.get("summary", {}).get("iteration", ""),
        "started": _ago(status.get("startTime"), now),
        "ended": _ago(status.get("finishTime"), now),
        "model": spec["model"]["source"],
        "preference": spec["preference"]["kind"],
        "queue": spec.get("queue", {}).get("name", ""),
        "image": status.get("image", ""),
        "failures": ", ".join(f"{count} {cause}" for cause, count in status.get("failures", {}).items() if count),
        "GPU-seconds": ", ".join(f"{stage} {count}" for stage, count in status.get("gpuSeconds", {}).items()),
        "digest": status.get("digest", "")[:16],
    }
    rows += [(name, printable(str(value))) for name, value in pairs.items() if value]
    return _pairs(rows)


def _conditions(resource: Resource, told: Explanation, now: datetime) -> Table | None:
    """Those that say something; what stands above is not repeated."""
    found = shown_status(resource).get("conditions", ())
    table = _grid(5)
    for condition in found:
        if condition["type"] in TRUE_IS_BAD and condition["status"] == "False":
            continue
        bad = condition["status"] == ("True" if condition["type"] in TRUE_IS_BAD else "False")
        style = "yellow" if bad and condition["reason"] != "Finished" else ""
        table.add_row(
            condition["type"],
            Text(condition["status"], style),
            condition["reason"],
            duration(_seconds(condition["lastTransitionTime"], now)),
            "" if told.reason and told.reason in condition["message"] else printable(condition["message"]),
        )
    return table if found else None


def _attempts(resource: Resource, records: Records, now: datetime) -> Table | None:
    """The attempts that the status still has, with those of older iterations folded away."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("", "stage", "attempt", "outcome", "exit", "took", "what it said"):
        table.add_column(
            title,
            no_wrap=title != "what it said",
            justify="right" if title in ("exit", "took") else "left",
            overflow="fold",
        )
    states = states_of(resource)
    for step in in_order(records):
        for attempt in records[step].newest:
            table.add_row(*_attempt(step, attempt, states.get(step, "Pending"), now))
    return table if table.row_count else None


def _attempt(step: Step, attempt: Attempt, state: str, now: datetime) -> Iterator[RenderableType]:
    mark = {Outcome.SUCCEEDED: "Succeeded", Outcome.RUNNING: state}.get(attempt.outcome, "Failed")
    yield Text(*MARKS[mark])
    yield str(step)
    yield str(attempt.number)
    yield Text(attempt.outcome.value, OUTCOME_STYLES.get(attempt.outcome, "yellow"))
    yield "" if attempt.exit_code is None else str(attempt.exit_code)
    yield duration(attempt.seconds_at(now))
    evicted = f" (evicted {attempt.evictions} times)" if attempt.evictions else ""
    yield printable(f"{attempt.message}{evicted}")


async def _print_events(source: Source, console: Console, now: datetime) -> None:
    try:
        found = await source.events()
    except UserError as error:  # events are a help, and many users may not read them
        _section(console, "Events", printable(str(error)))
        return
    if not found:
        return
    table = _grid(4)
    for event in found[-SHOWN_EVENTS:]:
        table.add_row(*_event(event, now))
    _section(console, "Events", table)


def _event(event: Object, now: datetime) -> Iterator[RenderableType]:
    yield duration(_seconds(event_time(event), now))
    yield Text(event.get("type", ""), "yellow" if event.get("type") == "Warning" else "")
    yield event.get("reason", "")
    count = event.get("count") or 1
    yield printable(event.get("message", "") + (f" ({count} times)" if count > 1 else ""))


async def _print_log(source: Source, console: Console, resource: Resource) -> None:
    step = step_that_matters(resource)
    if step is None:
        return
    wanted = Wanted(step=step, attempt=shown_records(resource)[step].attempts.made)
    try:
        log = await source.log(wanted)
        lines = [line async for line in readable(log.lines(follow=False, tail=LOG_LINES))]
    except UserError as error:
        title, lines = f"Log of {step}, attempt {wanted.attempt}", textwrap.wrap(str(error), console.width - 4)
    else:
        title = f"The end of the log of {step}, attempt {wanted.attempt}: {log.title}"
    _section(console, title, Text("\n".join(lines), "dim", overflow="fold"))
    console.print()
    console.print(Text(f"All of it: {source.command('logs')}"), soft_wrap=True)


def _ago(time: str | None, now: datetime) -> str:
    return f"{time} ({duration(_seconds(time, now))} ago)" if time else ""


def _seconds(time: str, now: datetime) -> float:
    return max(0.0, seconds_between(time, timestamp(now)))


def _pairs(rows: Iterable[tuple[str, Any]]) -> Table:
    table = _grid(2)
    for name, value in rows:
        table.add_row(Text(name, "dim"), printable(value) if isinstance(value, str) else value)
    return table


def _grid(columns: int) -> Table:
    """Without lines; the last column is wrapped."""
    table = Table.grid(padding=(0, 2))
    for number in range(columns):
        table.add_column(no_wrap=number < columns - 1, overflow="fold")
    return table
