"""Runs whose operator crashes between any two calls, hears late of things, and is disturbed in any way at any time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated_api import Call
from simulated_cluster import DISRUPTED, HANGS, LOST, Behaviour
from simulated_operator import FAILS, USER_FAULT, Crash, SimulatedOperator, Watchman, held_at
from sppo_operator.cache import Kind
from sppo_operator.decide import schedule
from sppo_operator.errors import ConflictError, UnavailableError

Disturb = Callable[[Call, bool], None]

# Crashes


def scripted(script: dict[str, list[Behaviour]]) -> SimulatedOperator:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script.update({step: list(behaviours) for step, behaviours in script.items()})
    return operator


def crash_at(number: int, when_done: bool) -> Disturb:
    seen = Counter[bool]()

    def disturb(call: Call, done: bool) -> None:
        seen[done] += 1
        if done == when_done and seen[done] == number + 1:
            raise Crash

    return disturb


SCRIPTS: dict[str, dict[str, list[Behaviour]]] = {
    "undisturbed": {},
    "failures": {
        "evaluate 0": [FAILS],
        "generate 1": [FAILS, DISRUPTED],
        "train 1": [FAILS, DISRUPTED, DISRUPTED],
    },
}


@pytest.mark.parametrize("when_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_crash_at_any_call_changes_nothing(script: dict[str, list[Behaviour]], when_done: bool) -> None:
    expected = scripted(script)
    expected.finish()
    for number, call in enumerate(expected.cluster.calls):
        operator = scripted(script)
        watchman, crash = Watchman(operator), crash_at(number, when_done)

        def disturb(call: Call, done: bool, watchman: Watchman = watchman, crash: Disturb = crash) -> None:
            watchman(call, done)
            crash(call, done)

        operator.cluster.disturb = disturb
        operator.finish()
        at = f"after a crash at {call}"
        assert watchman.made == expected.jobs(), at
        assert operator.attempts() == expected.attempts(), at
        assert operator.status.get("failures") == expected.status.get("failures"), at
        assert operator.cluster.work == expected.cluster.work, at
        assert max(Counter(operator.events()).values()) == 1, at


# Slow watches and lost answers


def test_a_job_whose_creation_got_no_answer_is_found_with_its_end() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.disturb = once(lambda call, done: done and call.verb == "create", UnavailableError("timeout"))
    operator.look()
    for _ in range(5):  # while the watch of the Jobs is behind, it comes to its end
        operator.cluster.tick()
        operator.cluster.wait(1)
    operator.look()
    assert operator.attempts()["prepare 0"] == "Succeeded"
    for kind in Kind:
        operator.cluster.deliver(operator.cache, kind)
    operator.finish()
    assert set(operator.attempts().values()) == {"Succeeded"}


def test_pods_that_the_watch_did_not_show_yet_have_a_say_in_the_verdict() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script["train 1"] = [USER_FAULT, FAILS]
    operator.steps(lambda: operator.at_work("train"))
    for _ in range(5):
        operator.cluster.tick()
    operator.cluster.deliver(operator.cache, Kind.JOB)
    operator.look()
    assert operator.condition("Succeeded")["message"] == "train 1: prompts.source lacks a column: name it"


def test_pods_that_outlive_their_job_are_awaited_though_no_watch_showed_them() -> None:
    operator = SimulatedOperator(iterations=1, evaluation={"parallel": False})
    operator.cluster.disturb = Watchman(operator)
    operator.cluster.script["train 1"] = [HANGS, HANGS]
    operator.steps(lambda: "i1-train-a1" in operator.jobs())
    operator.cluster.tick()
    operator.cluster.tick()
    (job,) = operator.live_jobs()
    operator.cluster.remove(operator.cluster.at(job))
    operator.cluster.deliver(operator.cache, Kind.JOB)
    operator.cluster.wait(60)
    operator.look()
    assert operator.attempts()["train 1"] == "Running"
    operator.finish()


def test_a_job_of_an_attempt_that_is_over_is_removed() -> None:
    operator = held_at("train")
    (job,) = operator.live_jobs()
    operator.cluster.remove(operator.cluster.at(job))
    operator.cluster.script["train 1"] = [HANGS] * 2
    operator.steps(lambda: "i1-train-a2" in operator.jobs())
    operator.cluster.disturb = lambda call, done: None
    metadata = {name: job["metadata"][name] for name in ("name", "namespace", "labels", "ownerReferences")}
    operator.cluster.add("jobs", {"metadata": metadata, "spec": job["spec"]})
    operator.rest(2)
    assert [job["metadata"]["name"] for job in operator.live_jobs()] == ["demo-i1-train-a2"]


def test_lost_pods_that_outlive_their_job_are_given_up_after_a_while() -> None:
    operator = SimulatedOperator(iterations=1, evaluation={"parallel": False})
    operator.cluster.script["train 1"] = [LOST, LOST]
    operator.steps(lambda: operator.at_work("train"))
    (job,) = operator.live_jobs()
    operator.cluster.remove(operator.cluster.at(job))
    operator.finish()
    assert operator.attempts()["train 1"] == "Vanished Succeeded"


def test_a_job_that_goes_while_it_is_suspended_blocks_nothing() -> None:
    operator = held_at("generate")
    (job,) = operator.live_jobs()
    operator.cluster.remove(operator.cluster.at(job))
    operator.edit(spec={"suspend": True})
    operator.cluster.deliver(operator.cache, Kind.RUN)
    operator.look()
    assert operator.condition("Progressing")["reason"] == "Suspended"
    operator.edit(spec={"suspend": False})
    operator.finish()
    assert operator.errors == []


def test_a_job_that_goes_while_it_is_deleted_blocks_nothing() -> None:
    operator = held_at("generate", queue={"name": "team"})
    operator.edit(spec={"suspend": True})

    def disturb(call: Call, done: bool) -> None:
        if (call.verb, done) == ("delete", False):
            operator.cluster.remove(call.at)

    operator.cluster.disturb = disturb
    operator.rest()
    assert operator.live_jobs() == []
    assert [call.verb for call in operator.cluster.calls].count("delete") == 1
    assert operator.errors == []


def once(matches: Callable[[Call, bool], bool], error: BaseException) -> Disturb:
    """Raise at the first call that matches."""
    waiting = [error]

    def disturb(call: Call, done: bool) -> None:
        if waiting and matches(call, done):
            raise waiting.pop()

    return disturb


# Anything at any time


class Storm:
    """Draws disturbances; `calm` ends them all."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.queued = data.draw(st.booleans(), "queue")
        spec: dict[str, Any] = {"queue": {"name": "team"}} if self.queued else {}
        parallel = data.draw(st.booleans(), "parallel")
        self.operator = SimulatedOperator(iterations=1, evaluation={"parallel": parallel}, **spec)
        self.cluster = self.operator.cluster
        self.cluster.sees_stopped_pods = data.draw(st.booleans(), "sees stopped pods")
        self.script = data.draw(st.dictionaries(STEPS, st.lists(BEHAVIOURS, max_size=3), max_size=4), "script")
        self.cluster.script.update({step: list(behaviours) for step, behaviours in self.script.items()})
        self.watchman = Watchman(self.operator)
        self.cluster.disturb = self.disturb
        self.fault: tuple[int, bool, BaseException] | None = None
        self.retries = 0

    def disturb(self, call: Call, done: bool) -> None:
        self.watchman(call, done)
        if self.fault is None or done != self.fault[1]:
            return
        left, when_done, error = self.fault
        self.fault = (left - 1, when_done, error) if left else None
        if not left:
            raise error

    def blow(self) -> None:
        event = self.data.draw(st.sampled_from(EVENTS))
        getattr(self, event)()

    def step(self) -> None:
        for _ in range(self.data.draw(st.integers(1, 5))):
            self.operator.step()

    def tick(self) -> None:
        self.cluster.tick()
        self.cluster.wait(self.data.draw(st.sampled_from([0, 1, 30, 100])))

    def deliver(self) -> None:
        self.cluster.deliver(
            self.operator.cache, self.data.draw(st.sampled_from(Kind)), self.data.draw(st.integers(1, 4))
        )
        self.operator.look()

    def look(self) -> None:
        self.operator.look()

    def fail(self) -> None:
        self.fault = self.data.draw(st.tuples(st.integers(0, 6), st.booleans(), st.sampled_from(FAULTS)))

    def delete_job(self) -> None:
        if jobs := self.cluster.all("jobs"):
            propagation = self.data.draw(st.sampled_from(["Background", "Foreground"]))
            job = self.data.draw(st.sampled_from(jobs))
            self.cluster.remove(self.cluster.at(job), propagation=propagation)

    def delete_pod(self) -> None:
        if pods := self.cluster.all("pods"):
            self.cluster.remove(self.cluster.at(self.data.draw(st.sampled_from(pods))))

    def suspend(self) -> None:
        self.operator.edit(spec={"suspend": not self.operator.run["spec"]["suspend"]})

    def grow(self) -> None:
        self.operator.edit(spec={"iterations": 2})

    def retry(self) -> None:
        self.retries += 1
        self.operator.edit(metadata={"annotations": {"sppo.dev/retry": str(self.retries)}})

    def turn_queue(self) -> None:
        self.cluster.admitting = not self.cluster.admitting

    def evict(self) -> None:
        admitted = [job for job in self.operator.live_jobs() if not job["spec"]["suspend"]]
        if self.queued and admitted and self.cluster.all("workloads"):
            job = self.data.draw(st.sampled_from(admitted))
            if "deletionTimestamp" not in job["metadata"]:
                self.cluster.evict(job)

    def calm(self) -> None:
        self.fault = None
        self.cluster.script.clear()
        self.cluster.admitting = True
        self.operator.edit(spec={"suspend": False})
        self.operator.due = self.cluster.now


EVENTS = [name for name in vars(Storm) if name not in ("disturb", "blow", "calm") and not name.startswith("_")]
STEPS = st.sampled_from([str(step) for step in schedule(2)])
BEHAVIOURS = st.sampled_from([FAILS, DISRUPTED, USER_FAULT])
FAULTS: list[BaseException] = [
    Crash(),
    UnavailableError("too many requests", status=429),
    UnavailableError("no answer in time"),
    ConflictError("the object has been modified", status=409),
]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_happens_the_run_comes_to_its_end(data: st.DataObject) -> None:
    storm = Storm(data)
    for _ in range(data.draw(st.integers(1, 25))):
        storm.blow()
    storm.calm()
    storm.operator.settle()  # a failure from before may come to light only now
    storm.retry()
    storm.operator.finish()
    iterations = storm.operator.run["spec"]["iterations"]
    done = {step for step, times in storm.cluster.work.items() if times}
    assert done == {str(step) for step in schedule(iterations)}
    assert max(storm.cluster.work.values()) == 1
    scripted = {behaviour for behaviours in storm.script.values() for behaviour in behaviours}
    failures = storm.operator.status.get("failures", {})
    assert FAILS in scripted or "application" not in failures
    assert USER_FAULT in scripted or "user" not in failures
    told = Counter(text for text in storm.operator.events() if text.startswith("Stage"))
    assert max(told.values()) == 1
