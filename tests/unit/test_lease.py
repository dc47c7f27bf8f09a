"""Leader election against the simulated API server; every candidate has a clock that the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import fake_time
import pytest
from api_server import Answer, ApiServer
from simulated_api import SimulatedApi
from sppo_operator.api import Api
from sppo_operator.errors import ApiError
from sppo_operator.lease import Elector
from sppo_operator.resources import lease
from sppo_operator.settings import Settings

PATH = lease("sppo-system", "sppo-operator")


class Candidate(Elector):
    """A process of its own, on a machine whose clock shows something else."""

    def __init__(self, api: Api, identity: str, now: float) -> None:
        self.now = now
        self.fences: list[float] = []
        settings = Settings(image="trainer", lease_namespace="sppo-system", identity=identity)
        super().__init__(api, settings, fence=self.fences.append, clock=lambda: self.now, sleep=self.pass_time)

    async def pass_time(self, seconds: float) -> None:
        self.now += seconds


def run(scenario: Callable[[ApiServer, Candidate, Candidate], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with ApiServer().served() as server, Api(server.login) as api:
            await scenario(server, Candidate(api, "a", 100.0), Candidate(api, "b", 7000.0))

    asyncio.run(inside())


async def spec(server: ApiServer) -> dict[str, Any]:
    found: dict[str, Any] = (await server.get(PATH))["spec"]
    return found


def test_the_first_candidate_makes_the_lease() -> None:
    async def scenario(server: ApiServer, a: Candidate, b: Candidate) -> None:
        assert await a.attempt()
        made = await spec(server)
        assert (made["holderIdentity"], made["leaseDurationSeconds"], made["leaseTransitions"]) == ("a", 15, 0)
        assert made["acquireTime"] == made["renewTime"]
        assert datetime.fromisoformat(made["renewTime"]).utcoffset() is not None
        assert len(made["renewTime"]) == len("2026-01-31T12:00:00.000000Z"), "not in microseconds"
        assert a.fences == [15.0]

    run(scenario)


def test_a_lease_that_is_renewed_is_never_taken() -> None:
    async def scenario(server: ApiServer, a: Candidate, b: Candidate) -> None:
        assert await a.attempt()
        for _ in range(20):
            a.now += 2
            b.now += 2
            assert await a.attempt()
            assert not await b.attempt()
        assert a.seconds_left() == 15.0
        assert (await spec(server))["leaseTransitions"] == 0

    run(scenario)


@pytest.mark.parametrize(("silence", "taken"), [(14.9, False), (15.0, True)], ids=["not yet", "over"])
def test_a_standby_takes_over_after_a_lease_of_silence(silence: float, taken: bool) -> None:
    async def scenario(server: ApiServer, a: Candidate, b: Candidate) -> None:
        assert await a.attempt()
        acquired = (await spec(server))["acquireTime"]
        b.now += 500  # it comes late, and counts from what it sees itself
        assert not await b.attempt()
        b.now += silence
        assert await b.attempt() is taken
        after = await spec(server)
        assert (after["holderIdentity"], after["leaseTransitions"]) == (("b", 1) if taken else ("a", 0))
        assert (after["acquireTime"] > acquired) is taken

    run(scenario)


def test_a_leader_has_stopped_before_another_may_begin() -> None:
    """It counts from before it asked, the standby from after it saw the answer."""

    async def scenario(server: ApiServer, a: Candidate, b: Candidate) -> None:
        def slow(call: Any, done: bool) -> None:
            if call.verb == "create" and done:
                a.now += 4  # the answer takes this long

        server.disturb = slow
        assert await a.attempt()
        assert a.seconds_left() == a.fences[-1] == 11.0
        assert not await b.attempt()
        a.now += 11
        b.now += 11
        assert a.seconds_left() == 0
        assert not await b.attempt()

    run(scenario)


def test_a_lease_that_was_released_is_taken_at_once() -> None:
    async def scenario(server: ApiServer, a: Candidate, b: Candidate) -> None:
        assert await a.attempt()
        assert not await b.attempt()
        await a.release()
        assert a.fences[-1] == 0
        assert a.seconds_left() < 0
        assert "holderIdentity" not in await spec(server) or (await spec(server))["holderIdentity"] is None
        assert await b.attempt()
        assert (await spec(server))["leaseTransitions"] == 1
        assert not await a.attempt()

    run(scenario)


def test_only_one_of_two_at_the_same_moment_succeeds() -> None:
    async def scenario(server: ApiServer, a: Candidate, b: Candidate) -> None:
        taken = await asyncio.gather(a.attempt(), b.attempt())
        assert sorted(taken) == [False, True]
        winner, loser = (a, b) if taken[0] else (b, a)
        await winner.release()
        assert sorted(await asyncio.gather(a.attempt(), b.attempt())) == [False, True]
        assert loser.now

    run(scenario)


def test_a_process_that_comes_back_under_its_name_goes_on() -> None:
    async def scenario(server: ApiServer, a: Candidate, b: Candidate) -> None:
        assert await a.attempt()
        again = Candidate(a._api, "a", 0.0)
        assert await again.attempt()
        assert (await spec(server))["leaseTransitions"] == 0

    run(scenario)


@pytest.mark.parametrize("change", ["annotated", "deleted"])
def test_a_leader_survives_what_people_do_to_its_lease(change: str) -> None:
    async def scenario(server: ApiServer, a: Candidate, b: Candidate) -> None:
        assert await a.attempt()
        if change == "annotated":
            await server.merge_patch(PATH, {"metadata": {"annotations": {"by": "somebody"}}})
        else:
            server.remove(server.at(await server.get(PATH)))
        a.now += 2
        tries = [await a.attempt(), await a.attempt()]
        assert tries == [False, True]
        assert not await b.attempt()

    run(scenario)


def test_a_leader_gives_up_when_it_could_not_renew_for_long_enough() -> None:
    async def scenario(server: ApiServer, a: Candidate, b: Candidate) -> None:
        await a.acquire()
        server.answers.extend([Answer(503, {"message": "down"})] * 100)
        await a.hold()
        assert a.now == 110.0  # renewSeconds after its last renewal
        assert a.seconds_left() == 5.0
        assert len(server.answers) == 96  # a try every 2 s, and none at the end
        assert a.fault() == ""
        a.now += 5
        assert a.fault() == "the lease was not renewed for 15 s"

    run(scenario)


def test_a_leader_gives_up_in_time_when_nothing_answers() -> None:
    class Silent(SimulatedApi):
        tries = 0

        async def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
            self.tries += 1
            await asyncio.Event().wait()
            raise AssertionError("it never answers")

    async def scenario() -> None:
        api, loop = Silent(), asyncio.get_running_loop()
        settings = Settings(image="i", lease_namespace="sppo-system", identity="a")
        elector = Elector(api, settings, fence=lambda seconds: None, clock=loop.time)  # type: ignore[arg-type] # stands in for Api
        await elector.acquire()
        await elector.hold()
        assert loop.time() == 10.0
        assert api.tries == 2

    fake_time.run(scenario())


def test_a_leader_rides_out_a_short_outage() -> None:
    async def scenario(server: ApiServer, a: Candidate, b: Candidate) -> None:
        await a.acquire()
        server.answers.extend([Answer(503), Answer(0), Answer(500), Answer(503)])
        holding = asyncio.create_task(a.hold())
        while server.answers:
            await asyncio.wait([holding], timeout=0)
        while a.fences[-1] != 15 or len(a.fences) < 2:
            await asyncio.wait([holding], timeout=0)
        assert not holding.done()
        holding.cancel()

    run(scenario)


def test_a_leader_whose_lease_is_somebody_elses_stops_at_once() -> None:
    async def scenario(server: ApiServer, a: Candidate, b: Candidate) -> None:
        await a.acquire()
        await server.merge_patch(PATH, {"spec": {"holderIdentity": "thief"}})
        await a.hold()
        assert a.now == 104.0  # one try finds a conflict, the next one the reason
        assert a.seconds_left() < 0
        assert await spec(server) | {"holderIdentity": "thief"} == await spec(server)

    run(scenario)


def test_who_waits_takes_over_from_a_leader_that_was_killed() -> None:
    async def scenario(server: ApiServer, a: Candidate, b: Candidate) -> None:
        assert await a.attempt()
        await b.acquire()
        assert 15 <= b.now - 7000.0 < 15 + 2 * 1.2
        assert b.holder == "b"

    run(scenario)


def test_readiness_knows_when_the_api_server_last_answered() -> None:
    async def scenario(server: ApiServer, a: Candidate, b: Candidate) -> None:
        assert a.unreached() == "no answer from the API server about the lease: not asked yet"
        await a.acquire()
        assert a.unreached() == ""
        server.answers.extend([Answer(503, {"message": "down"})] * 100)
        await a.hold()
        assert a.unreached() == ""
        a.now += 21
        assert a.unreached().endswith("down")

    run(scenario)


def test_a_release_that_fails_is_not_the_end() -> None:
    async def scenario(server: ApiServer, a: Candidate, b: Candidate) -> None:
        await a.acquire()
        server.answers.append(Answer(503))
        await a.release()
        assert a.fences[-1] == 0
        assert (await spec(server))["holderIdentity"] == "a"

    run(scenario)


def test_errors_of_an_attempt_are_the_callers() -> None:
    async def scenario(server: ApiServer, a: Candidate, b: Candidate) -> None:
        server.answers.append(Answer(403, {"message": "no rights"}))
        with pytest.raises(ApiError, match="no rights"):
            await a.attempt()
        assert a.fences == []

    run(scenario)
