"""What /metrics answers: the operator's own figures, and, of the leader, the series of the runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder

from sppo_operator.metrics import Metrics
from sppo_operator.objects import Object
from sppo_operator.run_metrics import families


class Exposition:
    """`runs` returns the resources of all runs, or None where this process does not lead."""

    def __init__(self, metrics: Metrics, runs: Callable[[], Sequence[Object] | None]) -> None:
        self._metrics = metrics
        self._runs = runs
        self._one_at_a_time = asyncio.Lock()

    async def render(self, accept: str) -> tuple[bytes, str]:
        """The text, in the format that the header Accept asks for, and its media type."""
        encode, media_type = choose_encoder(accept)
        async with self._one_at_a_time:
            # Taken in the event loop, which alone changes the cache; written in a thread, or the leases and probes
            # would wait while a thousand runs are written. A resource in the cache is replaced, never changed.
            scrape = _Scrape(self._metrics, self._runs(), time.time())
            return await asyncio.to_thread(encode, scrape), media_type


@dataclass(frozen=True)
class _Scrape:
    metrics: Metrics
    runs: Sequence[Object] | None
    now: float

    def collect(self) -> Iterable[Metric]:
        yield from self.metrics.registry.collect()
        if self.runs is not None:
            yield from families(self.runs, self.now)
