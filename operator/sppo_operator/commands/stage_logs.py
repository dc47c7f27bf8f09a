"""`sppo logs`: the log of the stage that matters, or of the one that was asked for."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TextIO

from sppo_operator.commands.overview import Resource, has_ended, shown_records, states_of, step_that_matters
from sppo_operator.commands.source import Log, NotStartedError, Source, Wanted
from sppo_operator.commands.tables import printable
from sppo_operator.commands.view import pace
from sppo_operator.decide import Outcome, Stage
from sppo_operator.errors import MissingError
from sppo_operator.result import progress_of
from sppo_operator.summary import figure

WAIT_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """What the user asked for; None leaves the choice to us."""

    stage: Stage | None = None
    iteration: int | None = None
    attempt: int | None = None
    previous: bool = False
    worker: int | None = None
    follow: bool = False
    raw: bool = False
    tail: int | None = None


async def show_logs(source: Source, options: LogOptions, out: TextIO) -> int:
    """Print it; with `follow` also those of the stages that come after it, until the run or the named stage ends."""
    if options.follow:
        return await _follow(source, options, out)
    resource = await source.resource()
    wanted = _wanted(resource, options)
    if wanted is None:
        raise MissingError(_nothing(resource, options))
    log = await source.log(wanted)
    _introduce(log, wanted)
    await _print(log, options, out)
    return 0


async def _follow(source: Source, options: LogOptions, out: TextIO) -> int:
    shown: dict[Wanted, Log] = {}
    read: set[Wanted] = set()
    complete: set[Wanted] = set()
    while True:
        resource = await source.resource()
        wanted = _wanted(resource, options)
        if wanted is None or wanted in complete:
            if _nothing_follows(source, resource, options, wanted):
                if not shown:
                    raise MissingError(_nothing(resource, options))
                return 0
            await asyncio.sleep(WAIT_SECONDS)
            continue
        over = _is_over(source, resource, wanted)  # asked before its log: then nothing is missed
        try:
            last = shown.get(wanted)
            log = await source.log_after(wanted, last) if last else await source.log(wanted)
            if log and log is not last:
                _introduce(log, wanted)
                shown[wanted] = log
            if log:
                await _print(log, options, out)
                read.add(wanted)
        except (NotStartedError, MissingError):  # its pod comes in a moment, unless it is over
            if over and wanted not in read:
                raise
        if over:
            complete.add(wanted)
        else:
            await asyncio.sleep(WAIT_SECONDS)


def _wanted(resource: Resource, options: LogOptions) -> Wanted | None:
    step = step_that_matters(resource, options.stage, options.iteration)
    if step is None:
        return None
    newest = shown_records(resource)[step].attempts.made
    attempt = options.attempt or newest - options.previous
    if not 1 <= attempt <= newest:
        which = "no attempt before it" if options.previous else f"no attempt {attempt}"
        raise MissingError(f"{step} has {which}: its newest is {newest}")
    return Wanted(step=step, attempt=attempt, worker=options.worker)


def _is_over(source: Source, resource: Resource, wanted: Wanted) -> bool:
    record = shown_records(resource)[wanted.step]
    if has_ended(resource) or source.stopped(resource):
        return True
    return record.attempts.made > wanted.attempt or record.attempts.last is not Outcome.RUNNING


def _nothing_follows(source: Source, resource: Resource, options: LogOptions, wanted: Wanted | None) -> bool:
    if has_ended(resource) or source.stopped(resource) or options.attempt or options.previous:
        return True
    ended = wanted is not None and states_of(resource).get(wanted.step) in ("Succeeded", "GivenUp")
    return ended and options.stage is not None


def _nothing(resource: Resource, options: LogOptions) -> str:
    if options.stage is None and options.iteration is None:
        return "no stage has started yet: --follow waits for the first"
    started = ", ".join(str(step) for step, record in shown_records(resource).items() if record.newest)
    number = [] if options.iteration is None else [str(options.iteration)]
    asked = " ".join([options.stage or "iteration", *number])
    return f"there is no log of {asked}: started are {started or 'none'}, and older iterations keep their results only"


def _introduce(log: Log, wanted: Wanted) -> None:
    say(f"==> {wanted.step}, attempt {wanted.attempt}: {log.title}")
    if log.others:
        say(f"    also there: {'; '.join(log.others)} (choose with --worker)")


async def _print(log: Log, options: LogOptions, out: TextIO) -> None:
    async for line in readable(log.lines(follow=options.follow, tail=options.tail), raw=options.raw):
        out.write(f"{line}\n")
        if options.follow:
            out.flush()


async def readable(lines: AsyncIterator[bytes], *, raw: bool = False) -> AsyncIterator[str]:
    """Progress as a sentence, and no character that would command the terminal."""
    async for line in lines:
        if raw:
            yield line.decode("utf-8", "replace")
            continue
        progress = progress_of(line)
        text = line.decode("utf-8", "replace").rpartition("\r")[2].expandtabs()  # of a bar its last state
        yield printable(progress_line(progress) if progress else text).plain


def progress_line(progress: dict[str, object]) -> str:
    given = progress.get("figures")
    figures = given.items() if isinstance(given, dict) else ()
    named = {name: figure(value) if isinstance(value, float) else value for name, value in figures}
    return f"{progress['done']}/{progress['total']} {pace({**progress, 'figures': named})}"


def say(text: str) -> None:
    """About the log, and no part of it."""
    print(printable(text).plain, file=sys.stderr, flush=True)
