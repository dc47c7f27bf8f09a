"""Kubernetes Events: what happened between two statuses of a run, told once. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NORMAL, WARNING = "Normal", "Warning"
MESSAGE_CHARACTERS = 1024  # the API server's bound

# Conditions whose turning True or False is news of its own.
TURNS = {
    ("Queued", "True"): (NORMAL, "Queued"),
    ("Queued", "False"): (NORMAL, "Admitted"),
    ("Suspended", "True"): (NORMAL, "Suspended"),
    ("Suspended", "False"): (NORMAL, "Resumed"),
    ("Degraded", "True"): (WARNING, "Degraded"),
    ("Succeeded", "True"): (NORMAL, "RunSucceeded"),
    ("Succeeded", "False"): (WARNING, "RunFailed"),
}
HELD_UP = ("Blocked", "PodsStuck")
"""Reasons of Progressing False that surface while the run has not ended."""
ENDS = {
    "Succeeded": (NORMAL, "StageSucceeded"),
    "UserFault": (WARNING, "StageFailed"),
    "Application": (WARNING, "StageFailed"),
    "Disruption": (NORMAL, "StageInterrupted"),
    "Vanished": (NORMAL, "StageInterrupted"),
    "Eviction": (NORMAL, "StageEvicted"),
    "Suspended": (NORMAL, "StageSuspended"),
}


@dataclass(frozen=True)
class Event:
    type: str
    """Normal or Warning."""
    reason: str
    message: str


def events_of(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    """What `new` says that `old` did not: attempts that began and ended, and conditions that turned."""
    return [*_attempts(old, new), *_turns(old, new)]


def _attempts(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Event]:
    before = dict(_outcomes(old))
    for (job, number), (outcome, message) in _outcomes(new):
        known = before.get((job, number), ("", ""))[0]
        if known == outcome:
            continue
        if not known:
            yield Event(NORMAL, "StageStarted", f"Started Job {job}")
        if outcome in ENDS:
            kind, reason = ENDS[outcome]
            why = f": {message}" if message else ""
            yield Event(kind, reason, f"Job {job} ended as {outcome}{why}"[:MESSAGE_CHARACTERS])


def _outcomes(status: Mapping[str, Any]) -> Iterator[tuple[tuple[str, int], tuple[str, str]]]:
    for iteration in status.get("iterations", ()):
        for stage in iteration.get("stages", ()):
            for attempt in stage.get("attempts", ()):
                # The status names the newest Job; the others differ in their number.
                stem = stage["job"].rpartition("-a")[0]
                number = attempt["number"]
                yield (f"{stem}-a{number}", number), (attempt["outcome"], attempt.get("message", ""))


def _turns(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Event]:
    before = {condition["type"]: condition for condition in old.get("conditions", ())}
    for condition in new["conditions"]:
        first = "Unknown" if condition["type"] == "Succeeded" else "False"
        was = before.get(condition["type"], {"status": first, "reason": ""})
        turn = TURNS.get((condition["type"], condition["status"]))
        if turn and was["status"] != condition["status"]:
            yield Event(*turn, condition["message"][:MESSAGE_CHARACTERS])
        if condition["reason"] in HELD_UP and was["reason"] != condition["reason"]:
            yield Event(WARNING, condition["reason"], condition["message"][:MESSAGE_CHARACTERS])
