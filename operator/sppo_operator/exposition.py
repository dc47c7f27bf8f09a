"""What /metrics answers: the operator's own figures, and, of the leader, the series of the runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder

from sppo_operator.metrics import Metrics
from sppo_operator.objects import Object
from sppo_operator.run_metrics import families

log = logging.getLogger(__name__)


class Exposition:
    """`runs` returns the resources of all runs, or None where this process does not lead."""

    def __init__(self, metrics: Metrics, runs: Callable[[], Sequence[Object] | None]) -> None:
        self._metrics = metrics
        self._runs = runs
        self._one_at_a_time = asyncio.Lock()
        self._told: set[str] = set()

    async def render(self, accept: str) -> tuple[bytes, str]:
        """The text, in the format that the header Accept asks for, and its media type."""
        encode, media_type = choose_encoder(accept)
        async with self._one_at_a_time:
            # Taken in the event loop, which alone changes the cache; written in a thread, or the leases and probes
            # would wait while a thousand runs are written. A resource in the cache is replaced, never changed.
            scrape = _Scrape(self._metrics, self._runs(), time.time(), self._tell)
            return await asyncio.to_thread(encode, scrape), media_type

    def _tell(self, resource: Object, error: Exception) -> None:
        """Log a run that has no series, once in the life of the process."""
        metadata = resource["metadata"]
        if metadata["uid"] not in self._told:
            self._told.add(metadata["uid"])
            log.warning(
                "run %s/%s has no metrics, since its resource cannot be read (%r): apply the CRD and the run",
                metadata["namespace"],
                metadata["name"],
                error,
            )


@dataclass(frozen=True)
class _Scrape:
    metrics: Metrics
    runs: Sequence[Object] | None
    now: float
    tell: Callable[[Object, Exception], None]

    def collect(self) -> Iterable[Metric]:
        yield from self.metrics.registry.collect()
        if self.runs is not None:
            unreadable: list[Object] = []

            def skip(resource: Object, error: Exception) -> None:
                unreadable.append(resource)
                self.tell(resource, error)

            yield from families(self.runs, self.now, skip)
            help_text = "Runs without series, since their resource cannot be read; the log names them."
            yield GaugeMetricFamily("sppo_operator_unreadable_runs", help_text, value=len(unreadable))
