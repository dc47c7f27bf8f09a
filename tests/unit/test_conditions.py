"""What the conditions say while something holds a run up, and which reason wins; test_status.py has the rest."""

from __future__ import annotations

from typing import Any

import pytest
from sppo_operator.conditions import GO_ON, MESSAGE_CHARACTERS, Condition, Holds, conditions, merged
from sppo_operator.decide import Action, Fail, Finish, GiveUp, Outcome, Stage, Start, Step, Wait
from sppo_operator.facts import Record

NOW, LATER = "2026-01-31T12:00:00Z", "2026-01-31T12:01:40Z"
BASE, GENERATE, TRAIN = Step(0, Stage.EVALUATE), Step(1, Stage.GENERATE), Step(1, Stage.TRAIN)
FULL = "the queue is full"
FAILED_ONCE = {TRAIN: Record().started(NOW).ended(Outcome.FAILED, LATER, message="no memory", exit_code=137)}
EVICTED = {TRAIN: Record().started(NOW).ended(Outcome.EVICTED, LATER)}
FAIL = Fail(TRAIN, "UserFault", "train 1: mend it")


def said(kind: str, *actions: Action, records: Any = None, **holds: Any) -> tuple[str, str, str]:
    found = {item.type: item for item in conditions(records or {}, actions, Holds(**holds))}[kind]
    return found.status, found.reason, found.message


PROGRESSING: dict[str, tuple[tuple[Action, ...], dict[str, Any], tuple[str, str, str]]] = {
    "at work": ((Wait(BASE), Wait(GENERATE)), {}, ("True", "Running", "evaluate 0 is at work; generate 1 is at work.")),
    "a start is work": ((Start(GENERATE, 1),), {}, ("True", "Running", "generate 1 is at work.")),
    "waits to be retried": (
        (Start(TRAIN, 2, 20.0),),
        {"records": FAILED_ONCE},
        ("True", "Running", "train 1 is tried again 20 s after attempt 1 ended: no memory."),
    ),
    "waits after an end without a message": (
        (Start(TRAIN, 2, 10.0),),
        {"records": EVICTED},
        ("True", "Running", "train 1 is tried again 10 s after attempt 1 ended: Eviction."),
    ),
    "everything is queued": (
        (Wait(BASE), Wait(GENERATE)),
        {"queued": {BASE: FULL, GENERATE: FULL}},
        ("True", "Queued", f"evaluate 0 waits: {FULL}; generate 1 waits: {FULL}"),
    ),
    "one of two is queued": (
        (Wait(BASE), Wait(GENERATE)),
        {"queued": {BASE: FULL}},
        ("True", "Running", "evaluate 0 waits in the queue; generate 1 is at work."),
    ),
    "stuck": ((Wait(TRAIN),), {"stuck": "no image"}, ("False", "PodsStuck", "no image")),
    "blocked before stuck": (
        (Wait(TRAIN),),
        {"stuck": "no image", "blocked": "no rights"},
        ("False", "Blocked", "no rights"),
    ),
    "suspended before blocked": (
        (Wait(TRAIN),),
        {"blocked": "no rights", "suspended": True},
        ("False", "Suspended", "Set spec.suspend to false, and the run goes on."),
    ),
    "stopped before suspended": (
        (Wait(TRAIN),),
        {"suspended": True, "stopped": True},
        ("False", "Stopped", "The command was stopped: start it again, and it goes on."),
    ),
    "failed before all": (
        (FAIL,),
        {"suspended": True, "blocked": "no rights", "stuck": "no image", "queued": {TRAIN: FULL}},
        ("False", "UserFault", f"train 1: mend it. {GO_ON}"),
    ),
    "finished before all": (
        (Finish(),),
        {"suspended": True, "blocked": "no rights"},
        ("False", "Finished", "Nothing is left to do."),
    ),
    "what was given up is not waited for": (
        (GiveUp(BASE, "no memory"), Wait(GENERATE)),
        {"queued": {GENERATE: FULL}},
        ("True", "Queued", f"generate 1 waits: {FULL}"),
    ),
}


@pytest.mark.parametrize(("actions", "facts", "expected"), PROGRESSING.values(), ids=PROGRESSING)
def test_progressing(actions: tuple[Action, ...], facts: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert said("Progressing", *actions, **facts) == expected


@pytest.mark.parametrize(
    ("kind", "holds", "status", "reason"),
    [
        ("Queued", {}, "False", "NotQueued"),
        ("Queued", {"queued": {TRAIN: FULL}}, "True", "Queued"),
        ("Suspended", {}, "False", "NotSuspended"),
        ("Suspended", {"suspended": True}, "True", "Suspended"),
        ("Degraded", {"stuck": "no image"}, "False", "AsExpected"),
        ("Succeeded", {"blocked": "no rights"}, "Unknown", "Running"),
    ],
)
def test_the_other_conditions_of_a_run_that_is_held_up(
    kind: str, holds: dict[str, Any], status: str, reason: str
) -> None:
    assert said(kind, Wait(TRAIN), **holds)[:2] == (status, reason)


def test_all_conditions_are_there_from_the_first_visit() -> None:
    kinds = [item.type for item in conditions({}, (Start(TRAIN, 1),))]
    assert kinds == ["Succeeded", "Progressing", "Queued", "Suspended", "Degraded"]


def test_merging_keeps_the_time_of_a_status_that_stays() -> None:
    first = merged(
        (), [Condition("Queued", "True", "Queued", "full"), Condition("Suspended", "False", "No", "")], 1, NOW
    )
    second = [Condition("Queued", "True", "Queued", "fuller"), Condition("Suspended", "True", "Yes", "")]
    assert [tuple(item.values()) for item in merged(first, second, 2, LATER)] == [
        ("Queued", "True", "Queued", "fuller", 2, NOW),
        ("Suspended", "True", "Yes", "", 2, LATER),
    ]


def test_a_message_is_cut_to_the_bound_of_the_crd() -> None:
    (item,) = merged((), [Condition("Queued", "True", "Queued", "x" * 3000)], 1, NOW)
    assert len(item["message"]) == MESSAGE_CHARACTERS == 2048
