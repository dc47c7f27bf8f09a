"""One term of leadership: the cache, the work queue, and all that fills and empties them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from sppo_operator.api import Api, Listing
from sppo_operator.cache import Cache, Key, Kind, trimmed
from sppo_operator.errors import ApiError, NotFoundError
from sppo_operator.jobs import RUN_LABEL
from sppo_operator.metrics import FAULT, Metrics
from sppo_operator.progress import ProgressBoard
from sppo_operator.reconcile import Reconciler
from sppo_operator.resources import jobs, pods, runs
from sppo_operator.settings import Settings
from sppo_operator.watches import Seen, Watches
from sppo_operator.workqueue import WorkQueue

PASS_SECONDS = 120.0
"""Longer than any pass takes: the bound of the harm that one which hangs does."""
PRIME_AGAIN_SECONDS = 2.0
DELIVERY_SECONDS = 10.0
"""How long a watch may take to deliver what a LIST shows already."""
STALE_RELISTS = 3

PATHS = {Kind.RUN: runs, Kind.JOB: jobs, Kind.POD: pods}
SELECTORS = {Kind.RUN: "", Kind.JOB: RUN_LABEL, Kind.POD: RUN_LABEL}

log = logging.getLogger(__name__)


class Reconciles(Protocol):
    async def reconcile(self, key: Key) -> float | None: ...


class Watching(Protocol):
    async def run(self) -> None: ...


class Term:
    """Carries out runs as long as `run` runs. It is used once.

    `drift` counts, by kind, the runs of which a LIST showed something that no watch had delivered in time.
    """

    def __init__(
        self,
        api: Api,
        settings: Settings,
        reconciler: Callable[[Api, Cache, ProgressBoard, Settings], Reconciles] = Reconciler,
        watches: Callable[[Settings, Seen], Watching] = Watches,
        metrics: Metrics | None = None,
    ) -> None:
        self._api = api
        self._settings = settings
        self._metrics = metrics or Metrics()
        self._cache = Cache()
        self._queue = WorkQueue[Key](metrics=self._metrics)
        self._board = ProgressBoard(api, self._cache, settings, self._queue.add)
        self._reconciler = reconciler(api, self._cache, self._board, settings)
        self._watches = watches(settings, self._see)
        self._workers: list[asyncio.Task[None]] = []
        self._complaints: dict[Key | str, str] = {}
        self._confirmed: dict[Kind, float] = {}
        """When a watch delivered something, or a LIST found that it had missed nothing."""
        self._unseen: set[Key] = set()
        """The runs that existed at the beginning and were not looked at yet."""
        self._stale: Counter[Kind] = Counter()
        self.drift: Counter[Kind] = Counter()
        self.primed = False
        """Whether everything that exists was seen once."""

    async def run(self) -> None:
        """Work until cancelled; what none of the parts can recover from is raised, in an ExceptionGroup."""
        await self._prime()
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._watches.run())
            parts.create_task(self._board.run())
            parts.create_task(self._relist())
            self._workers = [parts.create_task(self._work()) for _ in range(self._settings.workers)]

    async def stop(self, grace_seconds: float) -> None:
        """Begin no pass any more, and let those under way come to an end in time: afterwards nothing acts."""
        self._queue.stop()
        if self._workers:
            _, late = await asyncio.wait(self._workers, timeout=max(grace_seconds, 0))
            for worker in late:
                worker.cancel()
            await asyncio.wait(self._workers)

    def fault(self) -> str:
        """Why this process should be started anew; empty if it need not."""
        stale = [kind.value for kind, relists in self._stale.items() if relists >= STALE_RELISTS]
        if stale:
            return f"the watch of {', '.join(stale)} missed something before each of {STALE_RELISTS} relists in a row"
        dead = sum(worker.done() for worker in self._workers)
        return f"{dead} of {len(self._workers)} workers ended" if dead else ""

    def runs(self) -> list[dict[str, Any]] | None:
        """All runs as the cache holds them; None before each of them was looked at, since what they say may be old."""
        return self._cache.runs() if self.primed and not self._unseen else None

    async def _prime(self) -> None:
        """Fill the cache with what exists, however long the API server, the CRD or a right is missing."""
        while True:
            try:
                for kind in Kind:
                    listing = await self._list(kind)
                    self._enqueue(self._cache.replace(kind, listing, listing.version))
            except ApiError as error:
                remedy = "; is manifests/crd.yaml applied?" if isinstance(error, NotFoundError) else ""
                self._complain("prime", f"cannot begin: {error}{remedy}")
                await asyncio.sleep(PRIME_AGAIN_SECONDS * random.uniform(0.5, 1.5))
            else:
                break
        self._unseen = set(self._cache.keys())
        self._measure_watches()
        self.primed = True
        log.info("leading, %d runs known", len(self._cache.keys()))

    def _measure_watches(self) -> None:
        now = asyncio.get_running_loop().time

        def age(kind: Kind) -> float:
            return now() - self._confirmed[kind]

        for kind in Kind:
            self._confirmed[kind] = now()
            self._metrics.watch_age.labels(kind.value).set_function(partial(age, kind))
            self._metrics.watch_missed.labels(kind.value)

    async def _work(self) -> None:
        now = asyncio.get_running_loop().time
        while (key := await self._queue.get()) is not None:
            began, result, reason = now(), "", ""
            try:
                async with asyncio.timeout(PASS_SECONDS):
                    seconds = await self._reconciler.reconcile(key)
            except ApiError as error:
                result, reason = "retried", type(error).__name__
                self._complain(key, f"{key}: {error}; trying again")
                self._queue.retry(key)
            except Exception:  # a bug that one run brings to light must not stop the others
                result, reason = "failed", FAULT
                log.exception("%s: trying again after a fault of the operator", key)
                self._queue.retry(key)
            else:
                result = "done"
                self._complaints.pop(key, None)
                self._queue.forget(key)
                if seconds is not None:
                    self._queue.add_after(key, seconds)
            finally:
                self._queue.done(key)
                self._unseen.discard(key)
                if result:  # not for one that was cancelled
                    self._metrics.looked(now() - began, result, reason)

    async def _relist(self) -> None:
        """Find, from time to time, what a watch missed."""
        while True:
            await asyncio.sleep(self._settings.relist_seconds * random.uniform(0.9, 1.1))
            began = asyncio.get_running_loop().time()
            try:
                listings = {kind: await self._list(kind) for kind in Kind}
            except ApiError as error:
                self._complain("relist", f"cannot list what the watches should have seen: {error}")
                continue
            # The cache takes the newer of two states. So a LIST is still right after a while, and what then is news
            # in it was not on its way here but missed.
            await asyncio.sleep(DELIVERY_SECONDS)
            for kind, listing in listings.items():
                self._heal(kind, listing, began)

    def _heal(self, kind: Kind, listing: Listing, listed_at: float) -> None:
        missed = self._cache.replace(kind, listing, listing.version)
        self.drift[kind] += len(missed)
        self._stale[kind] = self._stale[kind] + 1 if missed else 0
        self._metrics.watch_missed.labels(kind.value).inc(len(missed))
        if missed:
            log.warning("the watch of %s missed a change of %s", kind.value, ", ".join(map(str, missed[:10])))
        else:
            self._confirmed[kind] = max(self._confirmed[kind], listed_at)
        self._enqueue(missed)

    async def _list(self, kind: Kind) -> Listing:
        """All objects of the kind in the namespaces that are served."""
        together = Listing()
        for namespace in self._settings.namespaces or ("",):
            path = PATHS[kind](namespace)
            listing = await self._api.list(path, selector=SELECTORS[kind], trim=partial(trimmed, kind))
            together.extend(listing)
            # The oldest of them: what was created since in a namespace that was listed before is not gone.
            together.version = min(together.version or listing.version, listing.version, key=int)
        return together

    def _see(self, kind: Kind, gone: bool, item: Mapping[str, Any]) -> None:
        self._confirmed[kind] = asyncio.get_running_loop().time()
        change = self._cache.remove if gone else self._cache.put
        if (key := change(kind, item)) is not None:
            self._queue.add(key)

    def _enqueue(self, keys: list[Key]) -> None:
        for key in keys:
            self._queue.add(key)

    def _complain(self, about: Key | str, text: str) -> None:
        """Log a fault that is tried again for as long as it takes, once until it reads otherwise."""
        if self._complaints.get(about) != text:
            log.warning("%s", text)
        self._complaints[about] = text
