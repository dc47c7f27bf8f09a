"""A term of leadership on a clock that jumps, with the API server in memory and watches that the test feeds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import fake_time
from simulated_api import SimulatedApi
from sppo_operator.api import Listing
from sppo_operator.cache import Cache, Key, Kind
from sppo_operator.metrics import Metrics
from sppo_operator.settings import Settings
from sppo_operator.term import Term

SETTINGS = Settings(image="trainer:1", lease_namespace="n", identity="me", workers=2)


class Api(SimulatedApi):
    async def list(self, path: str, selector: str = "", trim: Callable[[Any], Any] = dict) -> Listing:
        listing = Listing(await super().list(path))
        listing.version = str(self.version)
        return listing


class Reconciler:
    """Notes who was looked at when; `does` is what a pass does."""

    def __init__(self) -> None:
        self.passes: list[tuple[float, str]] = []
        self.does: Callable[[Key], Awaitable[float | None]] = self.nothing

    async def nothing(self, key: Key) -> float | None:
        return None

    async def reconcile(self, key: Key) -> float | None:
        self.passes.append((asyncio.get_running_loop().time(), key.name))
        return await self.does(key)


class Stage:
    """A term with all that is around it; the watches deliver when `deliver` is called."""

    def __init__(self, settings: Settings = SETTINGS, metrics: Metrics | None = None) -> None:
        self.metrics = metrics or Metrics()
        self.api, self.reconciler = Api(), Reconciler()
        self.broken: asyncio.Future[None] = asyncio.Future()
        self.term = Term(
            self.api,  # type: ignore[arg-type] # stands in for Api
            settings,
            reconciler=lambda api, cache, board, settings: self._with(cache),
            watches=lambda settings, seen: self,
            metrics=self.metrics,
        )
        self.cache: Cache

    def _with(self, cache: Cache) -> Reconciler:
        self.cache = cache
        return self.reconciler

    async def run(self) -> None:
        """The watches'."""
        await self.broken

    def add_run(self, name: str) -> None:
        self.api.add("spporuns", {"metadata": {"name": name, "namespace": "lab"}})

    def deliver(self) -> None:
        for kind in Kind:
            for present, item in self.api._unseen[kind]:
                self.term._see(kind, not present, item)
            self.api._unseen[kind].clear()

    def forget(self) -> None:
        """The watches miss what happened."""
        self.api._unseen.clear()

    @property
    def seconds(self) -> list[float]:
        return [round(at, 1) for at, _ in self.reconciler.passes]


def act(scenario: Callable[[Stage], Awaitable[None]], settings: Settings = SETTINGS) -> None:
    async def inside() -> None:
        stage = Stage(settings)
        await scenario(stage)

    fake_time.run(inside())


async def started(stage: Stage, seconds: float = 1.0) -> asyncio.Task[None]:
    task = asyncio.create_task(stage.term.run())
    await asyncio.sleep(seconds)
    return task
