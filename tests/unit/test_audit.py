"""The cluster tests' reader of the audit log: it sees what it is there to see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from audit import OPERATOR, AuditLog, completions, creations, live_at_once, written_out_of_turn

COMPLETE = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
NOT_YET = {"status": {"conditions": [{"type": "SuccessCriteriaMet", "status": "True"}]}}
Line = dict[str, Any]


def line(second: int, verb: str, resource: str, name: str, *, pod: str = "p1", code: int = 201, **more: Any) -> Line:
    """A call that took half a second."""
    kind, _, part = resource.partition("/")
    return {
        "verb": verb,
        "requestURI": "/apis",
        "user": {"username": OPERATOR, "extra": {"authentication.kubernetes.io/pod-name": [pod]}},
        "objectRef": {"resource": kind, "subresource": part, "namespace": "lab", "name": name},
        "responseStatus": {"code": code},
        "requestReceivedTimestamp": f"2026-01-01T00:00:{second:02}.000000Z",
        "stageTimestamp": f"2026-01-01T00:00:{second:02}.500000Z",
        **more,
    }


def log_of(folder: Path, *lines: Line) -> AuditLog:
    file = folder / "audit.log"
    file.write_text(json.dumps(line(0, "create", "jobs", "before")) + "\n")
    log = AuditLog(file)
    with file.open("a") as stream:
        stream.write("".join(json.dumps(item) + "\n" for item in lines) + '{"verb": "cre')
    return log


def created(second: int, name: str, **more: Any) -> Line:
    return line(second, "create", "jobs", name, **more)


def completed(second: int, name: str, body: dict[str, Any] | None = None) -> Line:
    return line(second, "update", "jobs/status", name, responseObject=body or COMPLETE)


def deleted(second: int, name: str) -> Line:
    return line(second, "delete", "jobs", name, code=200)


def lease(second: int, holder: str | None) -> Line:
    return line(second, "update", "leases", "sppo-operator", responseObject={"spec": {"holderIdentity": holder}})


def test_calls_since_the_beginning_that_were_answered_well(tmp_path: Path) -> None:
    refused, dry = created(1, "refused", code=409), created(2, "dry", requestURI="/apis?dryRun=All")
    calls = log_of(tmp_path, refused, dry, created(4, "late"), created(3, "early")).calls("lab")
    assert [(call.name, call.pod, call.resource) for call in calls] == [("early", "p1", "jobs"), ("late", "p1", "jobs")]
    assert log_of(tmp_path, created(1, "a")).calls("elsewhere") == []


def test_a_job_is_over_at_its_first_complete_status(tmp_path: Path) -> None:
    calls = log_of(tmp_path, created(1, "a"), completed(2, "a", NOT_YET), completed(3, "a"), completed(4, "a")).calls()
    assert [call.received.second for call in completions(calls).values()] == [3]
    assert [call.received.second for call in creations(calls).values()] == [1]


A1, A2, OTHER = "run-i1-train-a1", "run-i1-train-a2", "run-i1-score-a1"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([created(1, A1), completed(2, A1), created(3, A2)], [], id="after its end"),
        pytest.param([created(1, A1), deleted(2, A1), created(3, A2)], [], id="after its removal"),
        pytest.param([created(1, A1), created(2, OTHER)], [], id="another stage"),
        pytest.param([created(1, A1), created(2, A2)], [(A1, A2)], id="never ended"),
        pytest.param([created(1, A1), created(2, A2), completed(3, A1)], [(A1, A2)], id="ended later"),
        pytest.param([created(1, A1), created(2, A2), deleted(3, A1)], [(A1, A2)], id="removed later"),
    ],
)
def test_two_live_jobs_of_a_stage_are_found(tmp_path: Path, lines: list[Line], expected: list[tuple[str, str]]) -> None:
    assert live_at_once(log_of(tmp_path, *lines).calls()) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([created(1, "a", pod="p2"), lease(2, "p1"), created(3, "b")], [], id="by the holder"),
        pytest.param([lease(1, "p1"), lease(2, "p2"), created(3, "a", pod="p2")], [], id="by the next holder"),
        pytest.param([lease(1, "p1"), created(2, "a", pod="p2")], ["a"], id="by another one"),
        pytest.param([lease(1, "p1"), lease(2, "p2"), created(3, "a")], ["a"], id="by the last holder"),
        pytest.param([lease(1, "p1"), lease(2, None), created(3, "a")], ["a"], id="after the release"),
    ],
)
def test_writes_of_one_who_does_not_lead_are_found(tmp_path: Path, lines: list[Line], expected: list[str]) -> None:
    found = written_out_of_turn(log_of(tmp_path, *lines).calls(), "sppo-operator")
    assert [call.name for call in found] == expected
