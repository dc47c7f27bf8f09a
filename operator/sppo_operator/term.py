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
    ) -> None:
        self._api = api
        self._settings = settings
        self._cache = Cache()
        self._queue = WorkQueue[Key]()
        self._board = ProgressBoard(api, self._cache, settings, self._queue.add)
        self._reconciler = reconciler(api, self._cache, self._board, settings)
        self._watches = watches(settings, self._see)
        self._workers: list[asyncio.Task[None]] = []
        self._complaints: dict[Key | str, str] = {}
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
        self.primed = True
        log.info("leading, %d runs known", len(self._cache.keys()))

    async def _work(self) -> None:
        while (key := await self._queue.get()) is not None:
            try:
                async with asyncio.timeout(PASS_SECONDS):
                    seconds = await self._reconciler.reconcile(key)
            except ApiError as error:
                self._complain(key, f"{key}: {error}; trying again")
                self._queue.retry(key)
            except Exception:  # a bug that one run brings to light must not stop the others
                log.exception("%s: trying again after a fault of the operator", key)
                self._queue.retry(key)
            else:
                self._complaints.pop(key, None)
                self._queue.forget(key)
                if seconds is not None:
                    self._queue.add_after(key, seconds)
            finally:
                self._queue.done(key)

    async def _relist(self) -> None:
        """Find, from time to time, what a watch missed."""
        while True:
            await asyncio.sleep(self._settings.relist_seconds * random.uniform(0.9, 1.1))
            try:
                listings = {kind: await self._list(kind) for kind in Kind}
            except ApiError as error:
                self._complain("relist", f"cannot list what the watches should have seen: {error}")
                continue
            # The cache takes the newer of two states. So a LIST is still right after a while, and what then is news
            # in it was not on its way here but missed.
            await asyncio.sleep(DELIVERY_SECONDS)
            for kind, listing in listings.items():
                self._heal(kind, listing)

    def _heal(self, kind: Kind, listing: Listing) -> None:
        missed = self._cache.replace(kind, listing, listing.version)
        self.drift[kind] += len(missed)
        self._stale[kind] = self._stale[kind] + 1 if missed else 0
        if missed:
            log.warning("the watch of %s missed a change of %s", kind.value, ", ".join(map(str, missed[:10])))
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
