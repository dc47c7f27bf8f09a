"""What is told between two statuses: every attempt's beginning and end, and every turn of a condition, once."""

from __future__ import annotations

from typing import Any

import pytest
from simulated_api import SimulatedApi
from simulated_operator import completed
from sppo_operator.errors import ForbiddenError
from sppo_operator.events import MESSAGE_CHARACTERS, Event, events_of
from sppo_operator.recorder import Recorder

QUIET = {"Succeeded": "Unknown", "Progressing": "True", "Queued": "False", "Suspended": "False", "Degraded": "False"}
RUN = {
    "apiVersion": "sppo.dev/v1alpha1",
    "kind": "SPPORun",
    "metadata": {"name": "demo", "namespace": "lab", "uid": "uid-1", "resourceVersion": "7"},
}


def status(*outcomes: str, first: int = 1, message: str = "", reason: str = "", **conditions: str) -> dict[str, Any]:
    """A status whose stage train of iteration 1 has these attempts."""
    attempts = [
        {"number": number, "outcome": outcome, "message": message} for number, outcome in enumerate(outcomes, first)
    ]
    stage = {"stage": "train", "job": f"demo-i1-train-a{first + len(attempts) - 1}", "attempts": attempts}
    return {
        "conditions": [
            {
                "type": kind,
                "status": held,
                "reason": reason if kind == "Progressing" else "",
                "message": f"about {kind}",
            }
            for kind, held in (QUIET | conditions).items()
        ],
        "iterations": [{"number": 1, "stages": [stage] if attempts else [{"stage": "train"}]}],
    }


def told(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [f"{event.type} {event.reason}: {event.message}" for event in events_of(old, new)]


STARTED = "Normal StageStarted: Started Job demo-i1-train-a{}"
NEWS: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "nothing new": (status("Running"), status("Running"), []),
    "the first visit": ({}, status(), []),
    "a start": (status(), status("Running"), [STARTED.format(1)]),
    "a start in the first status": ({}, status("Running"), [STARTED.format(1)]),
    "a success": (
        status("Running"),
        status("Succeeded"),
        ["Normal StageSucceeded: Job demo-i1-train-a1 ended as Succeeded"],
    ),
    "a start and its end at once": (
        status(),
        status("Succeeded"),
        [STARTED.format(1), "Normal StageSucceeded: Job demo-i1-train-a1 ended as Succeeded"],
    ),
    "a failure and the next attempt": (
        status("Running"),
        status("Application", "Running", message="no memory"),
        ["Warning StageFailed: Job demo-i1-train-a1 ended as Application: no memory", STARTED.format(2)],
    ),
    "an old attempt that leaves the list": (status("Vanished", "Running"), status("Running", first=2), []),
    "a user's fault": (
        status("Running"),
        status("UserFault"),
        ["Warning StageFailed: Job demo-i1-train-a1 ended as UserFault"],
    ),
    "a disruption": (
        status("Running"),
        status("Disruption"),
        ["Normal StageInterrupted: Job demo-i1-train-a1 ended as Disruption"],
    ),
    "a Job that vanished": (
        status("Running"),
        status("Vanished"),
        ["Normal StageInterrupted: Job demo-i1-train-a1 ended as Vanished"],
    ),
    "an eviction": (
        status("Running"),
        status("Eviction"),
        ["Normal StageEvicted: Job demo-i1-train-a1 ended as Eviction"],
    ),
    "a suspended attempt": (
        status("Running"),
        status("Suspended"),
        ["Normal StageSuspended: Job demo-i1-train-a1 ended as Suspended"],
    ),
    "queued": (status(), status(Queued="True"), ["Normal Queued: about Queued"]),
    "queued on the first visit": ({}, status(Queued="True"), ["Normal Queued: about Queued"]),
    "admitted": (status(Queued="True"), status(), ["Normal Admitted: about Queued"]),
    "suspended": (status(), status(Suspended="True"), ["Normal Suspended: about Suspended"]),
    "resumed": (status(Suspended="True"), status(), ["Normal Resumed: about Suspended"]),
    "degraded": (status(), status(Degraded="True"), ["Warning Degraded: about Degraded"]),
    "no longer degraded": (status(Degraded="True"), status(), []),
    "succeeded": (status(), status(Succeeded="True"), ["Normal RunSucceeded: about Succeeded"]),
    "failed": (status(), status(Succeeded="False"), ["Warning RunFailed: about Succeeded"]),
    "failed on the first visit": ({}, status(Succeeded="False"), ["Warning RunFailed: about Succeeded"]),
    "goes on after it succeeded": (status(Succeeded="True"), status(), []),
    "blocked": (status(), status(reason="Blocked", Progressing="False"), ["Warning Blocked: about Progressing"]),
    "still blocked": (status(reason="Blocked"), status(reason="Blocked"), []),
    "stuck instead of blocked": (
        status(reason="Blocked"),
        status(reason="PodsStuck"),
        ["Warning PodsStuck: about Progressing"],
    ),
    "goes on": (status(reason="PodsStuck"), status(reason="Running"), []),
}


@pytest.mark.parametrize(("old", "new", "expected"), NEWS.values(), ids=NEWS)
def test_news(old: dict[str, Any], new: dict[str, Any], expected: list[str]) -> None:
    assert told(old, new) == expected
    assert told(new, new) == []


def test_a_stage_whose_details_were_dropped_ends_in_silence() -> None:
    old, new = status("Succeeded"), status("Succeeded")
    del new["iterations"][0]["stages"]
    assert told(old, new) == []


def test_a_message_is_cut_to_the_bound_of_events() -> None:
    (event,) = events_of(status("Running"), status("Application", message="x" * 2000))
    assert len(event.message) == MESSAGE_CHARACTERS == 1024


def test_an_event_is_posted_about_the_run_and_under_a_name_of_its_own() -> None:
    api = SimulatedApi()
    completed(Recorder(api, "operator-1").tell(RUN, [Event("Normal", "Queued", "full")] * 2))  # type: ignore[arg-type] # stands in for Api
    first, second = api.all("events")
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert first["involvedObject"] == {
        "apiVersion": "sppo.dev/v1alpha1",
        "kind": "SPPORun",
        "namespace": "lab",
        "name": "demo",
        "uid": "uid-1",
        "resourceVersion": "7",
    }
    assert (first["type"], first["reason"], first["message"], first["count"]) == ("Normal", "Queued", "full", 1)
    assert (first["reportingComponent"], first["reportingInstance"]) == ("sppo-operator", "operator-1")


def test_an_event_that_cannot_be_posted_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    api = SimulatedApi()
    refused = iter([ForbiddenError("events is forbidden", status=403)])

    def admission(body: dict[str, Any]) -> None:
        for error in refused:
            raise error

    api.admission = admission
    completed(Recorder(api, "operator-1").tell(RUN, [Event("Normal", "Queued", "full")] * 2))  # type: ignore[arg-type] # stands in for Api
    assert len(api.all("events")) == 1
    assert "an Event about demo was not posted: events is forbidden" in caplog.text
