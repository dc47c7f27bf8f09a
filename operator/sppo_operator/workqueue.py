"""A queue of keys to be worked on, with the semantics of client-go's workqueue.

A key waits at most once however often it is added, is never worked on by two workers at once, and one that is added
while it is worked on comes back afterwards: no addition is lost. For one event loop.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from sppo_operator.metrics import Metrics

K = TypeVar("K", bound=Hashable)

BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 30.0


class WorkQueue(Generic[K]):
    def __init__(self, jitter: Callable[[], float] = random.random, metrics: Metrics | None = None) -> None:
        """`jitter` returns a number in [0, 1): how much of half a backoff is taken off."""
        self._jitter = jitter
        self._metrics = metrics or Metrics()
        self._metrics.queue_depth.set_function(lambda: self.depth)
        self._waiting: deque[tuple[K, float]] = deque()
        """With the time since when."""
        self._dirty: set[K] = set()
        """Keys that need work: those that wait, and those that were added while they are worked on."""
        self._processing: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: Counter[K] = Counter()
        self._news = asyncio.Event()
        self._stopped = False

    @property
    def depth(self) -> int:
        """How many keys wait for a worker."""
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Have the key worked on, soon; once more, if it is worked on now."""
        if key in self._dirty or self._stopped:
            return
        self._dirty.add(key)
        self._metrics.queue_adds.inc()
        if key not in self._processing:
            self._enqueue(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Add the key later. Of several times the earliest holds, since a look too early only costs another one."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer and timer.when() <= loop.time() + seconds:
            return
        if timer:
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._add_due, key)

    async def get(self) -> K | None:
        """The next key, to be given back by `done`; None once the queue is stopped."""
        while not (self._waiting or self._stopped):
            self._news.clear()
            await self._news.wait()
        if self._stopped:
            return None
        key, since = self._waiting.popleft()
        self._metrics.queue_wait.observe(asyncio.get_running_loop().time() - since)
        self._dirty.remove(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> None:
        """The work on the key is over, well or not."""
        self._processing.remove(key)
        if key in self._dirty:
            self._enqueue(key)

    def retry(self, key: K) -> None:
        """Add the key after a time that doubles with every failure since `forget`."""
        backoff = min(BACKOFF_SECONDS * 2 ** min(self._failures[key], 32), LONGEST_BACKOFF_SECONDS)
        self._failures[key] += 1
        self._metrics.queue_retries.inc()
        self.add_after(key, backoff * (1 - self._jitter() / 2))

    def forget(self, key: K) -> None:
        """The key was worked on without a failure."""
        del self._failures[key]

    def stop(self) -> None:
        """Give no key to anybody any more."""
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()
        self._news.set()

    def _enqueue(self, key: K) -> None:
        self._waiting.append((key, asyncio.get_running_loop().time()))
        self._news.set()

    def _add_due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)
