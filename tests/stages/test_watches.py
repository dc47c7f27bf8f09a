"""The operator's watches: real kopf, real sockets, a simulated API server."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from api_scenarios import DEADLINE_SECONDS, eventually, with_server
from api_server import Answer, ApiServer
from sppo_operator.cache import Kind
from sppo_operator.errors import SPPOError
from sppo_operator.settings import Settings
from sppo_operator.watches import Watches

Event = tuple[str, str, str]


def add(server: ApiServer, plural: str, name: str, namespace: str = "lab", run: str = "demo") -> dict[str, Any]:
    labels = {"sppo.dev/run": run} if run else {}
    return server.add(plural, {"metadata": {"name": name, "namespace": namespace, "labels": labels}})


@asynccontextmanager
async def watching(server: ApiServer, *namespaces: str) -> AsyncIterator[tuple[list[Event], asyncio.Task[None]]]:
    """The events that the watches tell of: kind, name, and whether the object is there."""
    events: list[Event] = []

    def seen(kind: Kind, gone: bool, item: Mapping[str, Any]) -> None:
        events.append((kind.value, item["metadata"]["name"], "gone" if gone else "there"))

    settings = Settings(image="i", lease_namespace="n", identity="me", namespaces=namespaces)
    task = asyncio.create_task(Watches(settings, seen, login=server.login).run())
    try:
        yield events, task
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_watches_tell_of_everything_and_change_nothing() -> None:
    async def scenario(server: ApiServer) -> None:
        add(server, "spporuns", "demo", run="")
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        bystander = asyncio.Event()
        async with watching(server) as (events, _):
            await eventually(lambda: len(events) == 1)
            made = add(server, "jobs", "j")
            add(server, "jobs", "not-ours", run="")
            add(server, "pods", "p", namespace="team")
            server.change(made, spec={"suspend": True})
            server.remove(server.at(made))
            waiter = asyncio.create_task(bystander.wait())  # began while kopf ran
            await eventually(lambda: len(events) == 5)
            assert events[0] == ("spporuns", "demo", "there")
            assert [event for event in events if event[0] == "jobs"] == [("jobs", "j", "there")] * 2 + [
                ("jobs", "j", "gone")
            ]
            assert ("pods", "p", "there") in events
            began = time.monotonic()
        assert time.monotonic() - began < 2.5, "it did not stop when it was told to"
        assert not waiter.done()
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
        assert {request.method for request in server.requests} == {"GET"}

    with_server(scenario)


def test_watches_of_some_namespaces() -> None:
    async def scenario(server: ApiServer) -> None:
        for namespace in ("lab", "team", "other"):
            add(server, "jobs", namespace, namespace)
        async with watching(server, "lab", "team") as (events, _):
            await eventually(lambda: len(events) == 2)
            assert {name for _, name, _ in events} == {"lab", "team"}
        lists = [request.path for request in server.requests if request.path.endswith("/jobs")]
        assert all("/namespaces/" in path for path in lists)

    with_server(scenario)


def test_watches_outlast_an_api_server_that_is_away() -> None:
    async def scenario(server: ApiServer) -> None:
        server.answers.extend([Answer(503), Answer(403), Answer(0), Answer(500)])
        add(server, "jobs", "j")
        async with watching(server) as (events, task):
            await eventually(lambda: events)
            assert not task.done()

    with_server(scenario)


def test_the_end_of_kopf_is_an_error() -> None:
    async def scenario(server: ApiServer) -> None:
        async with watching(server) as (_, task):
            await eventually(lambda: any("watch" in request.query for request in server.requests))
            server.answers.extend([Answer(404)] * 50)  # as when the CRD is deleted
            add(server, "jobs", "j")
            server.drop_watches()
            async with asyncio.timeout(DEADLINE_SECONDS):
                await asyncio.wait([task])
            assert task.exception() is not None
            assert not isinstance(task.exception(), SPPOError)

    with_server(scenario)
