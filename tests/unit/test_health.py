from __future__ import annotations

import asyncio
import socket
import time

import aiohttp
import pytest
from run_resources import largest
from sppo_operator.errors import UserError
from sppo_operator.exposition import Exposition
from sppo_operator.health import PATIENCE_SECONDS, health_server
from sppo_operator.metrics import Metrics


def nothing() -> Exposition:
    return Exposition(Metrics(), lambda: None)


async def _ask(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


@pytest.mark.parametrize(
    ("path", "answer"),
    [("/healthz", (503, "a watch is stale\n")), ("/readyz", (200, "ok\n")), ("/other", (404, "404: Not Found"))],
)
def test_checks_are_answered(path: str, answer: tuple[int, str]) -> None:
    async def scenario() -> tuple[int, str]:
        with socket.create_server(("", 0)) as free:
            port = free.getsockname()[1]
        async with health_server(port, lambda: "a watch is stale", lambda: "", nothing()):
            return await _ask(port, path)

    assert asyncio.run(scenario()) == answer


def test_who_does_not_read_a_scrape_does_not_hold_the_process() -> None:
    exposition = Exposition(Metrics(), lambda: [largest()] * 100)

    async def scenario() -> float:
        with socket.create_server(("", 0)) as free:
            port = free.getsockname()[1]
        async with health_server(port, str, str, exposition):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            ending = time.monotonic()
        writer.close()
        return time.monotonic() - ending

    assert asyncio.run(scenario()) < PATIENCE_SECONDS + 5


def test_a_port_in_use_is_named() -> None:
    async def scenario(port: int) -> None:
        async with health_server(port, str, str, nothing()):
            pass

    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--http-port {port} cannot be served .*: give another one"):
            asyncio.run(scenario(port))
