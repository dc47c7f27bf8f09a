"""Scenarios against a simulated API server, in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from api_server import ApiServer

DEADLINE_SECONDS = 30.0


def with_server(scenario: Callable[[ApiServer], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with ApiServer().served() as server:
            await scenario(server)

    asyncio.run(inside())


async def eventually(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.02)
