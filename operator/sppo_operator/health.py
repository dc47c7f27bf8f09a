"""/healthz and /readyz, for the kubelet, and /metrics, for Prometheus.

The checks are answered by the event loop that does the work, so a loop that hangs answers no probe: it needs no other
heartbeat.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from sppo_operator.errors import UserError
from sppo_operator.exposition import Exposition

PATIENCE_SECONDS = 2.0
"""How long, at the end, an answer may still take: who reads a scrape slowly must not hold the process."""
PIECE = 2**16
"""What is longer is compressed in a thread."""

Check = Callable[[], str]
"""What is wrong; empty if nothing is."""


@asynccontextmanager
async def health_server(port: int, live: Check, ready: Check, exposition: Exposition) -> AsyncIterator[None]:
    """Serve checks and metrics on all addresses, of IPv4 and IPv6. Raises UserError if the port cannot be had."""
    application = web.Application()
    application.router.add_get("/healthz", _handler(live))
    application.router.add_get("/readyz", _handler(ready))
    application.router.add_get("/metrics", _metrics(exposition))
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=PATIENCE_SECONDS)
    await runner.setup()
    try:
        await _listen(runner, port)
        yield
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, port: int) -> None:
    try:
        await web.TCPSite(runner, port=port).start()
    except OSError as error:
        raise UserError(f"--http-port {port} cannot be served ({error.strerror}): give another one") from error


def _handler(check: Check) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(_: web.Request) -> web.StreamResponse:
        fault = check()
        return web.Response(text=f"{fault or 'ok'}\n", status=503 if fault else 200)

    return handle


def _metrics(exposition: Exposition) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        text, media_type = await exposition.render(request.headers.get("Accept", ""))
        response = web.Response(body=text, headers={"Content-Type": media_type}, zlib_executor_size=PIECE)
        response.enable_compression()
        return response

    return handle
