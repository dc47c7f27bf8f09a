"""What a run's resource tells a person at a glance: how it is, what needs attention, how it ended. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sppo_operator.conditions import TRIED_AGAIN
from sppo_operator.decide import Stage, Step
from sppo_operator.facts import Record, Records, in_order
from sppo_operator.policy import USER_FAULT
from sppo_operator.status import records_of
from sppo_operator.summary import running_steps

Resource = Mapping[str, Any]
CONFIG_FAULT = 78
"""EX_CONFIG: the API server refused a Job, so no stage has an exit code."""


class Level(StrEnum):
    WAIT = "wait"
    """It goes on by itself."""
    HELP = "help"
    """Somebody has to do something."""


@dataclass(frozen=True)
class Note:
    level: Level
    text: str


def shown_status(resource: Resource) -> Mapping[str, Any]:
    status: Mapping[str, Any] = resource.get("status") or {}
    return status


def shown_conditions(resource: Resource) -> dict[str, Mapping[str, str]]:
    """By type; those that are not there yet are Unknown."""
    unknown = {"status": "Unknown", "reason": "", "message": ""}
    found = dict.fromkeys(("Succeeded", "Progressing", "Queued", "Suspended", "Degraded"), unknown)
    return found | {condition["type"]: condition for condition in shown_status(resource).get("conditions", ())}


def shown_records(resource: Resource) -> Records:
    """The records of the status with the progress of the stages that run, which no decision reads."""
    records = records_of(resource)
    for iteration in shown_status(resource).get("iterations", ()):
        for stage in iteration.get("stages", ()):
            step = Step(iteration["number"], Stage(stage["stage"]))
            if step in records and "progress" in stage:
                records[step] = replace(records[step], progress=stage["progress"])
    return records


def states_of(resource: Resource) -> dict[Step, str]:
    """The state of every stage that the status shows: Pending, Queued, Running and so on."""
    return {
        Step(iteration["number"], Stage(stage["stage"])): stage["state"]
        for iteration in shown_status(resource).get("iterations", ())
        for stage in iteration.get("stages", ())
    }


def has_ended(resource: Resource) -> bool:
    return shown_conditions(resource)["Succeeded"]["status"] != "Unknown"


def failed_step(resource: Resource) -> Step | None:
    """The stage for which the run failed; None if it did not, or no stage is to blame."""
    return next((step for step, state in states_of(resource).items() if state == "Failed"), None)


def exit_status(resource: Resource) -> int:
    """Of a run that has ended, as `sppo run` ends: 0, the stage's own code if the user must change something, or 1."""
    succeeded = shown_conditions(resource)["Succeeded"]
    if succeeded["status"] == "True":
        return 0
    step = failed_step(resource)
    record = records_of(resource).get(step) if step else None
    if record is None or not record.newest:
        return CONFIG_FAULT if succeeded["reason"] == "Refused" else 1
    code = record.newest[-1].exit_code
    return code if code is not None and code in USER_FAULT else 1


def attention(resource: Resource) -> list[Note]:
    """Why a run that has not ended does not get on, or not well; the gravest first."""
    if has_ended(resource):
        return [Note(Level.HELP, text) for text in _degraded(resource)]
    notes = [*_progressing(resource), *(Note(Level.HELP, text) for text in _degraded(resource))]
    return sorted(notes, key=lambda note: note.level is Level.WAIT)


def _progressing(resource: Resource) -> Iterator[Note]:
    found = shown_conditions(resource)
    progressing, queued = found["Progressing"], found["Queued"]
    if progressing["status"] == "False":
        yield Note(Level.HELP, progressing["message"])
    elif progressing["status"] == "True" and is_retrying(resource):
        yield Note(Level.WAIT, progressing["message"])
    if queued["status"] == "True":
        yield Note(Level.WAIT, queued["message"])


def _degraded(resource: Resource) -> Iterator[str]:
    degraded = shown_conditions(resource)["Degraded"]
    if degraded["status"] == "True":
        yield degraded["message"]


def is_retrying(resource: Resource) -> bool:
    """Whether a stage that failed waits for its next attempt."""
    return TRIED_AGAIN in shown_conditions(resource)["Progressing"]["message"]


def step_that_matters(resource: Resource, stage: Stage | None = None, iteration: int | None = None) -> Step | None:
    """Of the stages that were started: the one that failed, else the most important that runs, else the last.

    An evaluation that was given up matters more than what ended later.
    """
    records = {
        step: record
        for step, record in shown_records(resource).items()
        if record.newest and stage in (None, step.stage) and iteration in (None, step.iteration)
    }
    failed = failed_step(resource)
    if failed in records:
        return failed
    states = states_of(resource)
    running = sorted(running_steps(records), key=lambda step: states.get(step) != "Running")
    given_up = [step for step in in_order(records) if states.get(step) == "GivenUp"]
    return next(iter([*running, *given_up]), None) or max(
        in_order(records), key=lambda step: _last_time(records[step]), default=None
    )


def _last_time(record: Record) -> str:
    return record.newest[-1].started
