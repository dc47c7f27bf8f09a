"""A term of leadership: what is looked at, what is healed, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from lone_term import Stage, act, started
from simulated_api import Call
from sppo_operator.cache import Key, Kind
from sppo_operator.errors import ConflictError, ForbiddenError, NotFoundError, UnavailableError
from sppo_operator.settings import Settings
from sppo_operator.term import PASS_SECONDS


def test_everything_that_exists_is_looked_at_first() -> None:
    async def scenario(stage: Stage) -> None:
        for name in ("a", "b", "c"):
            stage.add_run(name)
        assert not stage.term.primed
        await started(stage)
        assert stage.term.primed
        assert sorted(name for _, name in stage.reconciler.passes) == ["a", "b", "c"]

    act(scenario)


def test_a_term_begins_when_the_crd_and_the_rights_are_there(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        faults = [NotFoundError("no such resource", status=404)] * 5 + [ForbiddenError("no right", status=403)] * 5

        def missing(call: Call, done: bool) -> None:
            if faults:
                raise faults.pop(0)

        stage.api.disturb = missing
        await started(stage, 60.0)
        assert stage.term.primed

    act(scenario)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "cannot begin: no such resource; is manifests/crd.yaml applied?",
        "cannot begin: no right",
    ]


def test_events_lead_to_passes() -> None:
    async def scenario(stage: Stage) -> None:
        await started(stage)
        stage.add_run("a")
        stage.deliver()
        await asyncio.sleep(1)
        labels = {"sppo.dev/run": "a"}
        job = stage.api.add("jobs", {"metadata": {"name": "j", "namespace": "lab", "labels": labels}})
        stage.deliver()
        await asyncio.sleep(1)
        stage.api.remove(stage.api.at(job))
        stage.deliver()
        await asyncio.sleep(1)
        assert stage.reconciler.passes == [(1.0, "a"), (2.0, "a"), (3.0, "a")]

    act(scenario)


def test_a_run_is_looked_at_again_when_it_asks_for_it() -> None:
    async def scenario(stage: Stage) -> None:
        answers = iter([5.0, 0.5, None])

        async def ask(key: Key) -> float | None:
            return next(answers)

        stage.reconciler.does = ask
        stage.add_run("a")
        await started(stage, 50.0)
        assert stage.seconds == [0.0, 5.0, 5.5]

    act(scenario)


def test_an_api_server_that_refuses_is_asked_for_ever_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        faults = [ConflictError("changed")] * 3 + [UnavailableError("down")] * 20

        async def fail(key: Key) -> float | None:
            if faults:
                raise faults.pop(0)
            return None

        stage.reconciler.does = fail
        stage.add_run("a")
        await started(stage, 600.0)
        assert len(stage.reconciler.passes) == 24
        assert max(later - earlier for earlier, later in zip(stage.seconds, stage.seconds[1:], strict=False)) <= 30.0

    act(scenario)
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert messages == ["lab/a: changed; trying again", "lab/a: down; trying again"]


def test_after_a_success_a_fault_is_news_and_is_tried_again_soon(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        faults = [True] * 8 + [False] + [True] * 2 + [False] * 2

        async def fail(key: Key) -> float | None:
            if faults.pop(0):
                raise UnavailableError("down")
            return 100.0

        stage.reconciler.does = fail
        stage.add_run("a")
        await started(stage, 200.0)
        assert len(stage.seconds) == 12
        assert stage.seconds[9] - stage.seconds[8] == 100.0
        assert stage.seconds[11] - stage.seconds[9] < 0.4, "it backed off as if it had never succeeded"

    act(scenario)
    assert [record.getMessage() for record in caplog.records].count("lab/a: down; trying again") == 2


def test_a_bug_that_one_run_brings_to_light_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        async def fail(key: Key) -> float | None:
            if key.name == "a":
                raise ZeroDivisionError
            return None

        stage.reconciler.does = fail
        for name in ("a", "b"):
            stage.add_run(name)
        await started(stage, 0.3)
        assert [name for _, name in stage.reconciler.passes].count("b") == 1
        assert [name for _, name in stage.reconciler.passes].count("a") > 1
        assert stage.term.fault() == ""

    act(scenario)
    assert caplog.records[-1].exc_info


def test_a_pass_that_hangs_is_ended() -> None:
    async def scenario(stage: Stage) -> None:
        async def hang(key: Key) -> float | None:
            await asyncio.Event().wait()
            return None

        stage.reconciler.does = hang
        stage.add_run("a")
        await started(stage, PASS_SECONDS + 1)
        assert len(stage.seconds) == 2

    act(scenario)


def test_a_relist_heals_what_a_watch_missed() -> None:
    async def scenario(stage: Stage) -> None:
        stage.add_run("a")
        await started(stage)
        stage.add_run("b")
        stage.api.remove(stage.api.at(stage.api.all("spporuns")[0]))
        stage.forget()
        await asyncio.sleep(90)
        assert stage.cache.keys() == [Key("lab", "b")]
        assert [name for _, name in stage.reconciler.passes] == ["a", "a", "b"]
        assert stage.term.drift == {Kind.RUN: 2, Kind.JOB: 0, Kind.POD: 0}
        assert stage.term.fault() == ""

    act(scenario)


@pytest.mark.parametrize(("late", "drift"), [(2.0, 0), (30.0, 1)], ids=["on its way", "missed"])
def test_an_event_that_is_on_its_way_is_no_drift(late: float, drift: int) -> None:
    async def scenario(stage: Stage) -> None:
        listed = asyncio.Event()

        def change_just_before(call: Call, done: bool) -> None:
            if call.verb == "list" and call.at.plural == "spporuns" and not done and stage.term.primed:
                stage.add_run("a")
                stage.api.disturb = lambda call, done: None
                listed.set()

        stage.api.disturb = change_just_before
        await started(stage)
        await listed.wait()
        await asyncio.sleep(late)
        stage.deliver()
        await asyncio.sleep(20)
        assert stage.term.drift[Kind.RUN] == drift
        assert [name for _, name in stage.reconciler.passes] == ["a"]

    act(scenario)


def test_a_watch_that_misses_something_again_and_again_is_stale() -> None:
    async def scenario(stage: Stage) -> None:
        await started(stage)
        faults = []
        for number in range(4):
            stage.add_run(f"r{number}")
            stage.forget()
            await asyncio.sleep(76)
            faults.append(stage.term.fault())
        await asyncio.sleep(90)
        assert faults[:2] == ["", ""]
        assert faults[3] == "the watch of spporuns missed something before each of 3 relists in a row"
        assert stage.term.fault() == "", "it was well at the last relist"

    act(scenario)


def test_a_relist_that_fails_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        task = await started(stage)

        def down(call: Call, done: bool) -> None:
            raise UnavailableError("down")

        stage.api.disturb = down
        await asyncio.sleep(300)
        stage.api.disturb = lambda call, done: None
        stage.add_run("a")
        stage.forget()
        await asyncio.sleep(80)
        assert stage.term.drift[Kind.RUN] == 1
        assert not task.done()

    act(scenario)
    assert [record.getMessage() for record in caplog.records if "down" in record.getMessage()] == [
        "cannot list what the watches should have seen: down"
    ]


def test_only_the_namespaces_that_are_served_are_listed() -> None:
    async def scenario(stage: Stage) -> None:
        stage.api.add("spporuns", {"metadata": {"name": "a", "namespace": "lab"}})
        stage.api.add("spporuns", {"metadata": {"name": "b", "namespace": "team"}})
        stage.api.add("spporuns", {"metadata": {"name": "c", "namespace": "other"}})
        await started(stage)
        assert stage.cache.keys() == [Key("lab", "a"), Key("team", "b")]

    settings = Settings(image="i", lease_namespace="n", identity="me", namespaces=("lab", "team"))
    act(scenario, settings)


def test_what_is_created_while_the_namespaces_are_listed_is_not_gone() -> None:
    async def scenario(stage: Stage) -> None:
        def create_between(call: Call, done: bool) -> None:
            if stage.term.primed and call.verb == "list" and call.at[:2] == ("spporuns", "team") and not done:
                stage.add_run("a")
                stage.deliver()
                stage.api.disturb = lambda call, done: None

        stage.api.disturb = create_between
        await started(stage, 90.0)
        assert stage.cache.keys() == [Key("lab", "a")]
        assert stage.term.drift[Kind.RUN] == 0

    act(scenario, Settings(image="i", lease_namespace="n", identity="me", namespaces=("lab", "team")))


@pytest.mark.parametrize(
    ("takes", "grace", "ended", "until"),
    [(3.0, 5.0, True, 3.0), (30.0, 5.0, False, 6.0), (30.0, -1.0, False, 1.0)],
    ids=["in time", "too long", "no time left"],
)
def test_a_stop_waits_for_passes_under_way(takes: float, grace: float, ended: bool, until: float) -> None:
    async def scenario(stage: Stage) -> None:
        over: list[bool] = []

        async def work(key: Key) -> float | None:
            try:
                await asyncio.sleep(takes)
            except asyncio.CancelledError:
                over.append(False)
                raise
            over.append(True)
            return None

        stage.reconciler.does = work
        for name in ("a", "b", "c"):
            stage.add_run(name)
        task = await started(stage)
        await stage.term.stop(grace)
        assert over == [ended, ended], "two workers, and the third run is begun no more"
        assert asyncio.get_running_loop().time() == until
        await asyncio.sleep(100)
        assert len(stage.reconciler.passes) == 2
        assert not task.done()

    act(scenario)


def test_a_stop_before_the_cache_is_filled() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.term.stop(5.0)
        stage.add_run("a")
        await started(stage)
        assert stage.reconciler.passes == []

    act(scenario)


def test_the_end_of_the_watches_is_the_end_of_the_term() -> None:
    async def scenario(stage: Stage) -> None:
        task = await started(stage)
        stage.broken.set_exception(RuntimeError("kopf failed"))
        await asyncio.wait([task], timeout=5)
        error = task.exception()
        assert isinstance(error, ExceptionGroup)
        assert error.subgroup(RuntimeError)

    act(scenario)


def test_a_worker_that_ended_is_a_fault() -> None:
    async def scenario(stage: Stage) -> None:
        async def cancelled(key: Key) -> Any:
            raise asyncio.CancelledError

        stage.reconciler.does = cancelled
        stage.add_run("a")
        await started(stage)
        assert stage.term.fault() == "1 of 2 workers ended"

    act(scenario)
