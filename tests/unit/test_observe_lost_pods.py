"""Pods that are deleted, lost with their nodes, or left behind."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cluster_objects import NOW, at, exited, job, pod
from job_conditions import ERROR, FAR, GENERATE, TAINTED, TRAIN, backoff
from sppo_operator.decide import Outcome, Stage
from sppo_operator.objects import moment
from sppo_operator.observe import lingering, observe

# The deletion of t-0 was asked for at second 70, its grace ends at 100, and a minute later it is lost.

LOST_POD = pod(TRAIN, "t-0", "Running", {"running": {}}, TAINTED, deleted=70)


@pytest.mark.parametrize(("second", "left"), [(100, 60.0), (159, 1.0), (160, None)])
def test_an_attempt_is_over_a_minute_after_the_grace_of_its_last_pod(second: float, left: float | None) -> None:
    seen = observe(TRAIN, [LOST_POD, pod(TRAIN, "t-1", "Failed", exited(1))], now=NOW + timedelta(seconds=second))
    assert seen.look_again_seconds == left
    assert seen.lost == (left is None)
    if seen.lost:
        assert seen.end is not None
        assert (seen.end.outcome, seen.end.message) == (Outcome.DISRUPTED, "pod t-0 was lost with its node: node-1")
        assert seen.finished == at(160)


def test_a_lost_node_explains_why_the_others_failed() -> None:
    failing = job(Stage.TRAIN, backoff(since=120)[0])
    pods = [LOST_POD, pod(TRAIN, "t-1", "Failed", exited(1, "lost my peer", at_second=119))]
    seen = observe(failing, pods, now=NOW + FAR)
    assert seen.lost
    assert seen.end is not None
    assert seen.end.message == "pod t-0 was disrupted: Taint manager: deleting due to NoExecute taint"


@pytest.mark.parametrize(
    ("deleted", "outcome", "message"),
    [
        (70, Outcome.DISRUPTED, "pod t-0 was deleted, and its node does not answer"),
        (120, Outcome.FAILED, "objective.beta is 0: raise it"),
    ],
    ids=["before the other failed", "because the other failed"],
)
def test_a_pod_that_was_deleted_on_a_lost_node(deleted: float, outcome: Outcome, message: str) -> None:
    failing = job(Stage.TRAIN, backoff(since=120)[0])
    silent = pod(TRAIN, "t-0", "Running", {"running": {}}, deleted=deleted)
    seen = observe(failing, [silent, pod(TRAIN, "t-1", "Failed", exited(1, ERROR, at_second=119))], now=NOW + FAR)
    assert seen.end is not None
    assert (seen.end.outcome, seen.end.message, seen.lost) == (outcome, message, True)


def test_a_lost_pod_is_awaited_while_another_runs() -> None:
    seen = observe(TRAIN, [LOST_POD, pod(TRAIN, "t-1", "Running", {"running": {}})], now=NOW + FAR)
    assert (seen.end, seen.lost, seen.look_again_seconds) == (None, False, None)


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ([], False),
        ([pod(TRAIN, "t-0", "Running")], True),
        ([pod(TRAIN, "t-0", "Pending")], True),
        ([pod(TRAIN, "t-0", "Succeeded"), pod(TRAIN, "t-1", "Failed")], False),
        ([pod(TRAIN, "t-0", "Running", deleted=11)], True),
        ([pod(TRAIN, "t-0", "Running", deleted=10)], False),
        ([pod(GENERATE, "g-0", "Running")], False),
    ],
    ids=["none", "running", "not started", "over", "within its grace and a minute", "lost", "another Job's"],
)
def test_lingering(pods: list[dict[str, Any]], expected: bool) -> None:
    assert lingering(pods, "demo-i1-train-a1", NOW + timedelta(seconds=100)) is expected


# Of a shard whose pod was deleted and has ended: seconds since the end of its grace period, unreplaced, look again in.
KEPT = {
    "just now": (0, False, 10.0),
    "the Job controller is busy": (9, False, 1.0),
    "nobody makes another one": (10, True, None),
}


@pytest.mark.parametrize(("seconds", "unreplaced", "again"), KEPT.values(), ids=KEPT)
def test_a_deleted_pod_that_is_not_replaced_shows_after_a_while(
    seconds: float, unreplaced: bool, again: float | None
) -> None:
    shard = pod(GENERATE, "g-0", "Failed", exited(143), deleted=-30)
    shard["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
    seen = observe(GENERATE, [shard], now=moment(at(seconds)))
    assert (seen.end, seen.unreplaced, seen.look_again_seconds) == (None, unreplaced, again)


def test_a_deleted_pod_that_was_replaced_is_no_trouble() -> None:
    old, new = pod(GENERATE, "g-0", "Failed", exited(143), deleted=-30), pod(GENERATE, "g-1", "Running")
    assert not observe(GENERATE, [old, new], now=moment(at(100))).unreplaced
