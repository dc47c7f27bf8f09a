"""`sppo watch`: a run until its end, or all runs until Ctrl-C, from states that are read again and again.

Level-triggered: what happened is what two states differ in, so nothing is lost when the API server is away for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sppo_operator.commands.board import PHASES, note_line, utc_now
from sppo_operator.commands.cluster import Runs
from sppo_operator.commands.explain import closing_lines
from sppo_operator.commands.overview import (
    Level,
    Note,
    Resource,
    attention,
    exit_status,
    has_ended,
    shown_conditions,
    shown_records,
    shown_status,
)
from sppo_operator.commands.source import Source
from sppo_operator.commands.view import LiveView, PlainView, View
from sppo_operator.decide import Outcome, Step
from sppo_operator.errors import MissingError, RightsError, ServerError
from sppo_operator.facts import Record, Records, in_order, seconds_between, timestamp
from sppo_operator.summary import duration

POLL_SECONDS = 2.0
REST = 10.0
"""How much longer than a list of all runs takes the next one is waited for."""
DRAW_SECONDS = 0.25
COLUMNS = ["name", "phase", "iteration", "stage", "progress", "left", "win rate", "age"]
WIDE_COLUMNS = 96
NOTHING_RUNS = 75
"""EX_TEMPFAIL: the run has not ended, and no command carries it out."""


async def watch(source: Source, view: View) -> int:
    """Show the run until it has ended; returns the exit status of the command."""
    resource = await source.resource()
    with view.shown():
        resource = await _follow(source, view, resource)
    if has_ended(resource):
        return _conclude(source, view, resource)
    view.warn(f"error: {source.stopped(resource)}")
    return NOTHING_RUNS


async def _follow(source: Source, view: View, resource: Resource) -> Resource:
    """The run as it is when it has ended, or when nothing carries it out."""
    records = shown_records(resource)
    if isinstance(view, PlainView):
        _introduce(view, resource)
    while not (has_ended(resource) or source.stopped(resource)):
        newest = await _next(source, view, resource, records)
        _check_same(resource, newest)
        found = shown_records(newest)
        for step, number, record in differences(records, found):
            _tell(view, step, number, record)
        resource, records = newest, found
    return resource


async def _next(source: Source, view: View, resource: Resource, records: Records) -> Resource:
    """The state after a while; meanwhile the board is drawn, since times pass and terminals are resized."""
    loop = asyncio.get_running_loop()
    notes: list[Note] = []
    while True:
        until = loop.time() + POLL_SECONDS
        while loop.time() < until:
            view.show(resource, records, notes)
            await asyncio.sleep(DRAW_SECONDS)
        try:
            return await source.resource()
        except (ServerError, RightsError) as error:
            notes = [_trying_again(error)]


def _trying_again(error: ServerError | RightsError) -> Note:
    """An API server that starts answers all sorts of things, also that nobody has any right."""
    return Note(Level.WAIT, f"{error.cause if isinstance(error, ServerError) else error}; trying again")


def _check_same(old: Resource, new: Resource) -> None:
    name = new["metadata"]["name"]
    if old["metadata"].get("uid") != new["metadata"].get("uid"):
        raise MissingError(f"run {name} was deleted, and another one has its name now: watch it anew")


def differences(old: Records, new: Records) -> Iterator[tuple[Step, int, Record]]:
    """Every attempt that began or ended: step, number, and the record as it was when that attempt was the newest.

    The outcome RUNNING says that it began.
    """
    for step in in_order(new):
        before = {attempt.number: attempt.outcome for attempt in old.get(step, Record()).newest}
        first = old.get(step, Record()).attempts.made
        for position, attempt in enumerate(new[step].newest, 1):
            known = before.get(attempt.number)
            record = replace(new[step], newest=new[step].newest[:position])
            if known is None and attempt.number > first:
                started = replace(attempt, outcome=Outcome.RUNNING, finished=None)
                yield step, attempt.number, replace(record, newest=(*record.newest[:-1], started))
            if (
                attempt.outcome is not Outcome.RUNNING
                and attempt.outcome is not known
                and (known or attempt.number > first)
            ):
                yield step, attempt.number, record


def _tell(view: View, step: Step, number: int, record: Record) -> None:
    if record.newest[-1].outcome is Outcome.RUNNING:
        view.started(step, number)
    else:
        view.ended(step, record)


def _introduce(view: View, resource: Resource) -> None:
    status = shown_status(resource)
    name = f"{resource['metadata'].get('namespace', 'default')}/{resource['metadata']['name']}"
    summary = status.get("summary", {})
    parts = [status.get("phase", "New")]
    parts += [f"iteration {summary['iteration']}"] if "iteration" in summary else []
    parts += [summary["stage"]] if "stage" in summary else []
    parts += [f"win rate {summary['winRate']}"] if "winRate" in summary else []
    view.say(f"{name}: {', '.join(parts)}")


def _conclude(source: Source, view: View, resource: Resource) -> int:
    for note in attention(resource):
        view.warn(f"warning: {note.text}")
    status = exit_status(resource)
    if status:
        view.warn(f"error: {shown_conditions(resource)['Succeeded']['message']}")
        view.warn(f"See: {source.command('describe')}")
    else:
        view.finish(shown_records(resource), source.results, closing_lines(source, resource))
    return status


async def watch_all(runs: Runs, view: View, *, everywhere: bool) -> int:
    """Show all runs until Ctrl-C; where their list takes long, it is asked for more rarely."""
    loop = asyncio.get_running_loop()
    asked = loop.time()
    found = await runs.list()
    said: dict[tuple[str, str], str] = {}
    notes: list[Note] = []
    with view.shown():
        while True:
            pause = max(POLL_SECONDS, REST * (loop.time() - asked))
            if isinstance(view, LiveView):
                await _draw(view, found, notes, pause, everywhere=everywhere)
            else:
                said = _say_changes(view, found, said)
                await asyncio.sleep(pause)
            asked = loop.time()
            try:
                found, notes = await runs.list(), []
            except (ServerError, RightsError) as error:
                notes = [_trying_again(error)]


async def _draw(
    view: LiveView, found: list[dict[str, Any]], notes: list[Note], seconds: float, *, everywhere: bool
) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        view.draw(runs_table(found, notes, view.console.width, everywhere=everywhere))
        await asyncio.sleep(DRAW_SECONDS)


def runs_table(found: list[dict[str, Any]], notes: list[Note], width: int, *, everywhere: bool) -> Group:
    """As `kubectl get sppo`, and below it what needs attention."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = ["namespace", *COLUMNS] if everywhere else COLUMNS
    columns = [title for title in columns if width >= WIDE_COLUMNS or title not in ("left", "age")]
    for title in columns:
        table.add_column(title, no_wrap=True, justify="right" if title == "age" else "left")
    lines = list(notes)
    for run in found:
        cells, note = _cells(run), _note(run)
        phase = Text(cells["phase"], PHASES.get(cells["phase"], "bold cyan"))
        table.add_row(*(phase if title == "phase" else cells[title] for title in columns))
        lines += [Note(note.level, f"{run['metadata']['name']}: {note.text}")] if note else []
    if not found and not notes:
        return Group(Text("No runs here yet: kubectl apply -f FILE makes one."))
    return Group(table, "", *map(note_line, lines))


def _note(run: Mapping[str, Any]) -> Note | None:
    """Why the run failed, or what it needs most."""
    if shown_status(run).get("phase") == "Failed":
        return Note(Level.HELP, shown_conditions(run)["Succeeded"]["message"])
    return next(iter(attention(run)), None)


def _cells(run: Mapping[str, Any]) -> dict[str, str]:
    status, metadata = shown_status(run), run["metadata"]
    summary = status.get("summary", {})
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "phase": status.get("phase", "New"),
        "iteration": summary.get("iteration", ""),
        "stage": summary.get("stage", ""),
        "progress": summary.get("progress", ""),
        "left": summary.get("timeLeft", ""),
        "win rate": summary.get("winRate", ""),
        "age": duration(max(0.0, seconds_between(metadata["creationTimestamp"], timestamp(utc_now())))),
    }


def _say_changes(
    view: View, found: list[dict[str, Any]], said: dict[tuple[str, str], str]
) -> dict[tuple[str, str], str]:
    """One line per run whose phase, stage or need has changed, and one for each that is gone."""
    now: dict[tuple[str, str], str] = {}
    for run in found:
        cells, note = _cells(run), _note(run)
        told = [cells[name] for name in ("phase", "iteration", "stage", "win rate") if cells[name]]
        told += [note.text] if note else []
        key = (cells["namespace"], cells["name"])
        now[key] = f"{cells['namespace']}/{cells['name']}: {', '.join(told)}"
        if said.get(key) != now[key]:
            view.say(now[key])
    for namespace, name in said.keys() - now.keys():
        view.say(f"{namespace}/{name}: deleted")
    return now
