"""Two replicas of which one leads: hand-over, and never two leaders."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from audit import AuditLog, written_out_of_turn
from lab import Lab
from namespaces import Namespace
from operators import LEASE, NAMESPACE, Operator
from standin_runs import standin
from testbed import Node

TAKEOVER_SECONDS = 30
HANDOVER_SECONDS = 10


@pytest.fixture
def log(node: Node, namespace: Namespace, operator: Operator) -> Iterator[AuditLog]:
    """What is written while runs keep the leader busy; all of it by whoever led at that time."""
    log = AuditLog(node.audit_log)
    for number in range(2):
        namespace.apply(standin(f"busy-{number}", iterations=50))
    until_written_by(operator, namespace, operator.leader(), log)
    yield log
    until_written_by(operator, namespace, operator.leader(), log)
    operator.renew()
    calls = log.calls()
    assert written_out_of_turn(calls, LEASE) == []


def until_written_by(operator: Operator, namespace: Namespace, pod: str, log: AuditLog) -> None:
    """The pod works: it has written a status."""
    operator.lab.until(
        "spporuns",
        namespace.name,
        lambda _: any((call.pod, call.resource) == (pod, "spporuns/status") for call in log.calls(namespace.name)),
    )


def until_led_by_another(lab: Lab, pod: str) -> float:
    """The seconds until the lease has another holder."""
    began = time.monotonic()
    lab.until("leases", NAMESPACE, lambda leases: leases[LEASE]["spec"].get("holderIdentity") not in (None, "", pod))
    return time.monotonic() - began


def test_a_standby_follows_a_leader_that_was_killed(
    lab: Lab, operator: Operator, log: AuditLog, capsys: pytest.CaptureFixture[str]
) -> None:
    leader = operator.leader()
    operator.kill(leader)
    # Before the kubelet starts it again: under its old name it would lead at once.
    lab.kubectl("delete", "pod", leader, "-n", NAMESPACE, "--grace-period=0", "--force")
    seconds = until_led_by_another(lab, leader)
    with capsys.disabled():
        print(f"\na killed leader was followed after {seconds:.1f} s")
    assert seconds < TAKEOVER_SECONDS


def test_a_leader_that_was_frozen_ends_when_it_wakes_up(
    lab: Lab, operator: Operator, log: AuditLog, capsys: pytest.CaptureFixture[str]
) -> None:
    leader = operator.leader()
    restarts = operator.restarts(leader)
    operator.signal(leader, signal.SIGSTOP)
    seconds = until_led_by_another(lab, leader)
    operator.signal(leader, signal.SIGCONT)
    with capsys.disabled():
        print(f"\na frozen leader was followed after {seconds:.1f} s")
    operator.until_restarted(leader, restarts + 1)
    assert seconds < TAKEOVER_SECONDS


@pytest.mark.parametrize("role", ["leader", "standby"])
def test_a_replica_that_is_asked_to_stop_ends_cleanly_and_hands_over(
    lab: Lab, operator: Operator, log: AuditLog, role: str, capsys: pytest.CaptureFixture[str]
) -> None:
    leader = operator.leader()
    stopped = leader if role == "leader" else next(pod for pod in operator.pods() if pod != leader)
    # Or it could be gone before its exit code is read.
    lab.patch("pods", NAMESPACE, stopped, {"metadata": {"finalizers": ["sppo.dev/test"]}})
    began = time.monotonic()
    lab.delete("pods", NAMESPACE, stopped)
    if role == "leader":
        seconds = until_led_by_another(lab, leader)
        with capsys.disabled():
            print(f"\na leader that was asked to stop was followed after {seconds:.1f} s")
        assert seconds < HANDOVER_SECONDS
    codes, seconds = lab.until("pods", NAMESPACE, lambda pods: exit_codes(pods[stopped])), time.monotonic() - began
    lab.patch("pods", NAMESPACE, stopped, {"metadata": {"finalizers": None}})
    assert codes == [0]
    assert seconds < HANDOVER_SECONDS
    operator.until_ready(2)


def exit_codes(pod: dict[str, Any]) -> list[int]:
    states = [status["state"] for status in pod["status"]["containerStatuses"]]
    return [state["terminated"]["exitCode"] for state in states if "terminated" in state]


@pytest.mark.parametrize("path", ["healthz", "readyz"])
def test_every_replica_says_that_it_is_well(lab: Lab, operator: Operator, path: str) -> None:
    answers = {
        pod: lab.http.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/{path}") for pod in operator.pods()
    }
    assert {pod: (answer.status_code, answer.text) for pod, answer in answers.items()} == dict.fromkeys(
        answers, (200, "ok\n")
    )
    assert len(answers) == 2
