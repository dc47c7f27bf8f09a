"""When the client reads its credentials again, and what it says if there are none."""

from __future__ import annotations

import asyncio
import math

import pytest
from api_server import Answer, ApiServer
from sppo_operator import resources
from sppo_operator.api import Api
from sppo_operator.commands.cluster import explained
from sppo_operator.connection import Connection
from sppo_operator.errors import (
    ApiError,
    KubeconfigError,
    RightsError,
)

JOB = resources.job("lab", "j")


def test_credentials_are_read_again() -> None:
    """After a minute, since tokens are rotated, and at once after a 401."""
    tokens, clock = iter("abcd"), [0.0]

    async def scenario() -> list[str]:
        async with ApiServer().served() as server:

            def login() -> Connection:
                return Connection(server=server.url, token=next(tokens))

            async with Api(login, clock=lambda: clock[0]) as api:
                for clock[0], status in [(0, 404), (59, 404), (60, 404), (61, 401), (62, 404)]:
                    server.answers.append(Answer(status))
                    with pytest.raises(ApiError):
                        await api.get(JOB)
            return [request.headers["Authorization"] for request in server.requests]

    assert asyncio.run(scenario()) == ["Bearer a", "Bearer a", "Bearer b", "Bearer b", "Bearer c"]


def test_a_log_that_was_refused_is_asked_for_with_other_credentials() -> None:
    tokens, clock = iter("ab"), [0.0]

    async def scenario() -> list[str]:
        async with ApiServer().served() as server:

            def login() -> Connection:
                return Connection(server=server.url, token=next(tokens), expires=math.inf)

            async with Api(login, clock=lambda: clock[0]) as api:
                for clock[0], status in [(500, 401), (501, 404)]:
                    server.answers.append(Answer(status))
                    with pytest.raises(ApiError):
                        await anext(api.lines(resources.pod_log("lab", "p")))
            return [request.headers["Authorization"] for request in server.requests]

    assert asyncio.run(scenario()) == ["Bearer a", "Bearer b"]


def test_a_program_that_gives_no_credentials_is_told_in_its_own_words() -> None:
    """It is no API server that gave no answer."""
    clock = [0.0]

    async def scenario() -> None:
        async with ApiServer().served() as server:

            def login() -> Connection:
                if clock[0]:
                    raise KubeconfigError("the kubeconfig's program cloud gave no credentials (exit 1): log in again")
                return server.login()

            async with Api(login, clock=lambda: clock[0]) as api:
                clock[0] = 100.0
                with pytest.raises(RightsError) as caught, explained("runs"):
                    await api.list(resources.runs())
                assert str(caught.value) == "the kubeconfig's program cloud gave no credentials (exit 1): log in again"

    asyncio.run(scenario())
