"""What happened to a run, whose fault it is, and what to do next: sentences for somebody who is tired. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sppo_operator.commands.overview import (
    Resource,
    attention,
    failed_step,
    has_ended,
    is_retrying,
    shown_conditions,
    shown_records,
    shown_status,
)
from sppo_operator.commands.source import Source
from sppo_operator.commands.tables import share_done
from sppo_operator.decide import Outcome, Step
from sppo_operator.facts import Record, Records, best_iteration, seconds_between, timestamp, win_rate
from sppo_operator.result import KILLED
from sppo_operator.status import policies_of
from sppo_operator.summary import duration, running_steps

UNSEEN_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Explanation:
    colour: str
    """Red: somebody must help. Yellow: it waits, or its result is in doubt. Green: done."""
    headline: str
    """What is the matter, one sentence."""
    reason: str = ""
    """The cause in the words of whoever noticed it."""
    fault: str = ""
    """Whose fault it is, and what that means."""
    next: tuple[str, ...] = ()
    """What to do; lines that begin with `$ ` are commands."""


def explanation(source: Source, resource: Resource, now: datetime) -> Explanation:
    name = f"{resource['metadata'].get('namespace', 'default')}/{resource['metadata']['name']}"
    if not shown_status(resource):
        return _unseen(name, resource, now)
    if has_ended(resource):
        succeeded = shown_conditions(resource)["Succeeded"]["status"] == "True"
        return _succeeded(source, name, resource) if succeeded else _failed(source, name, resource)
    if stopped := source.stopped(resource):
        return Explanation(
            headline=f"{name} is stopped.", reason=stopped, next=(f"$ {source.go_on()}",), colour="yellow"
        )
    return _under_way(source, name, resource)


def closing_lines(source: Source, resource: Resource) -> list[str]:
    """Where the results of a run that succeeded are."""
    policies, best = policies_of(shown_status(resource)), best_iteration(shown_records(resource))
    number = best if best in policies else max(policies, default=None)
    lines = []
    if number is not None:
        lines.append(f"Model of iteration {number}: {source.place_of_model(number, policies[number])}")
    report = shown_status(resource).get("report")
    return [*lines, f"Report: {source.place_of_report(report) if report else source.command('report')}"]


def _unseen(name: str, resource: Resource, now: datetime) -> Explanation:
    age = seconds_between(resource["metadata"]["creationTimestamp"], timestamp(now))
    if age < UNSEEN_SECONDS:
        return Explanation(headline=f"{name} is new: the operator has not looked at it yet.", colour="yellow")
    return Explanation(
        headline=f"No operator has looked at {name} in {duration(age)}.",
        fault="The operator does not run, or it serves other namespaces.",
        next=("$ kubectl get pods -A -l app.kubernetes.io/name=sppo-operator",),
        colour="red",
    )


def _succeeded(source: Source, name: str, resource: Resource) -> Explanation:
    records, status = shown_records(resource), shown_status(resource)
    best = best_iteration(records)
    rate = None if best is None else win_rate(records, best)
    iterations = max((step.iteration for step in records), default=0)
    took = duration(seconds_between(status["startTime"], status["finishTime"]))
    plural = "iteration" if iterations == 1 else "iterations"
    headline = f"{name} succeeded: {iterations} {plural} in {took}"
    if rate:
        verdict = "" if rate.low > 0.5 else ", which is no sure gain over the base model"
        headline += f"; the best is iteration {best} with a win rate of {rate} against the base model{verdict}"
    notes = [note.text for note in attention(resource)]
    return Explanation(
        headline=f"{headline}.",
        reason=" ".join(notes),
        next=tuple(closing_lines(source, resource)),
        colour="yellow" if notes else "green",
    )


def _failed(source: Source, name: str, resource: Resource) -> Explanation:
    condition, records, step = shown_conditions(resource)["Succeeded"], shown_records(resource), failed_step(resource)
    record = records.get(step, Record()) if step else Record()
    if step is None or not record.newest or condition["reason"] == "Refused":
        return Explanation(
            headline=f"{name} failed: no stage could be started.",
            reason=condition["message"],
            fault="The run's own settings are at fault; nothing is lost.",
            next=("Correct the field that is named, and apply the run again: it goes on by itself.",),
            colour="red",
        )
    last = record.newest[-1]
    fault, remedy = _fault(record)
    return Explanation(
        headline=f"{name} failed in {step}, attempt {last.number}{_code(last.exit_code)}.",
        reason=last.message or condition["message"],
        fault=fault,
        next=(remedy, f"$ {source.go_on()}", f"The run goes on with {step}; what is finished is kept."),
        colour="red",
    )


def _fault(record: Record) -> tuple[str, str]:
    """Whose fault it is, and what to do."""
    last = record.newest[-1]
    if last.outcome is Outcome.USER_FAULT:
        fault = "The run, its data or its workspace is at fault. The same again would fail again, so nobody tried."
        return fault, "Mend what it names (a field that may not change: in a new run), then let the run go on:"
    times = "once" if record.attempts.charged <= 1 else f"{record.attempts.charged} times"
    fault = f"The stage failed {times}, and spec.retries.limit allows no more."
    if "deadlineSeconds" in last.message:
        return f"{fault} It took longer than it may.", "Raise or remove the deadline, then let the run go on:"
    lacks_memory = last.exit_code == KILLED or "memory" in last.message
    cause = "it lacked memory" if lacks_memory else "a bug, a full device, or a wrong image"
    return (
        f"{fault} It is the machine's fault or the program's: {cause}.",
        "Read the log below, mend the cause (or raise spec.retries.limit), then let the run go on:",
    )


def _code(code: int | None) -> str:
    return "" if code is None else f", exit code {code}"


def _under_way(source: Source, name: str, resource: Resource) -> Explanation:
    found = shown_conditions(resource)
    progressing, degraded = found["Progressing"], found["Degraded"]
    if found["Suspended"]["status"] == "True":
        patch = """-p '{"spec":{"suspend":false}}'"""
        kubectl = f"$ {source.kubectl('patch')} --type merge {patch}"
        return Explanation(
            headline=f"{name} is suspended: no pod runs, nothing is lost.", next=(kubectl,), colour="yellow"
        )
    if progressing["status"] == "False":
        return Explanation(
            headline=f"{name} does not get on.",
            reason=progressing["message"],
            fault="It goes on by itself once that is mended; no retry is charged.",
            colour="red",
        )
    if is_retrying(resource):
        return Explanation(
            headline=f"{name} waits before it tries again.", reason=progressing["message"], colour="yellow"
        )
    if progressing["reason"] == "Queued":
        return Explanation(
            headline=f"{name} waits in the queue.",
            reason=progressing["message"],
            fault="It starts by itself when the queue has room.",
            colour="yellow",
        )
    records = shown_records(resource)
    doing = ", ".join(_doing(records, step) for step in running_steps(records))
    reason = degraded["message"] if degraded["status"] == "True" else ""
    return Explanation(
        headline=f"{name} is at work: {doing or progressing['message']}.",
        reason=reason,
        next=(f"$ {source.command('watch')}",),
        colour="yellow" if reason else "cyan",
    )


def _doing(records: Records, step: Step) -> str:
    record = records[step]
    parts = [str(step)]
    if record.newest[-1].number > 1:
        parts.append(f"attempt {record.newest[-1].number}")
    if record.progress:
        parts.append(f"{share_done(record.progress):.0%} done")
        if (left := record.progress.get("secondsLeft")) is not None:
            parts.append(f"{duration(left)} left")
    return " ".join(parts[:1]) + (f" ({', '.join(parts[1:])})" if len(parts) > 1 else "")
