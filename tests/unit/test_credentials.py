"""When a client logs in again: in time, once, and without keeping anybody waiting."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable

import pytest
from sppo_operator.connection import Connection
from sppo_operator.credentials import Credentials
from sppo_operator.errors import KubeconfigError, UnavailableError

SECONDS = 60.0


class Program:
    """Gives `t1`, `t2`, ..., each good for `lasting` seconds; with `held` not before it is let go."""

    def __init__(self, lasting: float) -> None:
        self.now, self.lasting, self.logins = 1000.0, lasting, 0
        self.fails = self.held = False
        self.let_go = threading.Event()

    def login(self) -> Connection:
        if self.held:
            assert self.let_go.wait(SECONDS)
        if self.fails:
            raise KubeconfigError("the kubeconfig's program cloud gave no credentials: log in again")
        self.logins += 1
        return Connection(server="http://x", token=f"t{self.logins}", expires=self.now + self.lasting)

    def credentials(self) -> Credentials:
        return Credentials(self.login, clock=lambda: self.now, now=lambda: self.now)


async def settled(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not done():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("lasting", "good", "late"),
    [(3600, 3200, 3601), (math.inf, 10**9, None), (5, 50, 61), (-3600, 50, 61)],
    ids=["an hour", "until refused", "seconds", "by a wrong clock"],
)
def test_a_program_is_asked_again_when_its_credentials_expire(lasting: float, good: float, late: float | None) -> None:
    async def scenario() -> None:
        program = Program(lasting)
        credentials = program.credentials()
        program.now += good
        assert (await credentials.current()).token == "t1"
        assert program.logins == 1
        if late is not None:
            program.now += late - good
            assert (await credentials.current()).token == "t2"

    asyncio.run(scenario())


def test_nobody_waits_for_a_program_while_the_old_credentials_are_good() -> None:
    async def scenario() -> None:
        program = Program(1000)
        credentials = program.credentials()
        program.held = True
        program.now += 950
        for _ in range(3):
            assert (await credentials.current()).token == "t1"
        program.let_go.set()
        await settled(lambda: credentials.connection.token == "t2")
        assert program.logins == 2

    asyncio.run(scenario())


def test_a_program_runs_once_beside_the_event_loop_for_all_that_wait() -> None:
    """The one that is cancelled, such as a renewal of a lease that took too long, does not stop it."""

    async def scenario() -> None:
        program = Program(1000)
        credentials = program.credentials()
        program.held = True
        program.now += 1001
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await credentials.current()
        waiting = [asyncio.create_task(credentials.current()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        program.let_go.set()
        assert {(await task).token for task in waiting} == {"t2"}
        assert program.logins == 2

    asyncio.run(scenario())


def test_refused_credentials_are_replaced_once() -> None:
    async def scenario() -> None:
        program = Program(math.inf)
        credentials = program.credentials()
        first = await credentials.current()
        program.now += 100
        credentials.refused(first)
        assert (await credentials.current()).token == "t2"
        credentials.refused(first)  # the answer to an older call
        assert (await credentials.current()).token == "t2"

    asyncio.run(scenario())


def test_a_program_that_fails_ends_nothing_before_the_old_credentials_do() -> None:
    async def scenario() -> None:
        program = Program(1000)
        credentials = program.credentials()
        program.fails = True
        program.now += 950
        assert (await credentials.current()).token == "t1"
        program.now += 51
        with pytest.raises(UnavailableError, match="gave no credentials: log in again"):
            await credentials.current()
        program.fails = False
        assert (await credentials.current()).token == "t2"

    asyncio.run(scenario())
