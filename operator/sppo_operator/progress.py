"""How far the running stages are, read from the ends of their pods' logs. For people only: no decision reads it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sppo_operator.api import Api
from sppo_operator.cache import Cache, Key
from sppo_operator.errors import ApiError
from sppo_operator.jobs import CONTAINER
from sppo_operator.objects import phase_of, true_condition
from sppo_operator.resources import INDEX_ANNOTATION, pod_log
from sppo_operator.result import LARGEST, is_number, progress_of
from sppo_operator.settings import Settings

ROUND_SECONDS = 1.0
POD_SECONDS = 15.0
"""How long a pod is left alone after its log was read."""
TAIL = {"container": CONTAINER, "tailLines": "50", "limitBytes": str(2**20)}
SPEED = "PerSecond"
"""How the names of figures end that are speeds."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Worker:
    """A running pod of a Job that is not over."""

    run: Key
    job: str
    """The uid of its Job."""
    index: int
    uid: str
    name: str


class ProgressBoard:
    """The newest progress of every Job that runs; `changed` is called with a run whenever it made some."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        settings: Settings,
        changed: Callable[[Key], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._cache = cache
        self._logs_per_round = round(settings.logs_per_second * ROUND_SECONDS)
        self._changed = changed
        self._clock = clock
        self._read_at: dict[str, float] = {}
        """When a pod's log was read, by the pod's uid."""
        self._reports: defaultdict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        """What a Job's workers said last, by the Job's uid and the worker's index."""

    def latest(self, job_uid: str) -> Mapping[str, Any] | None:
        """What the Job's workers did together, with the first one's figures; None before any said something.

        Speeds add up over the workers that are not done.
        """
        reports = [report for _, report in sorted(self._reports.get(job_uid, {}).items())]
        if not reports:
            return None
        done, total = (sum(report[name] for report in reports) for name in ("done", "total"))
        left = [report["secondsLeft"] for report in reports if "secondsLeft" in report]
        together = {**reports[0], "done": done, "total": total} | ({"secondsLeft": max(left)} if left else {})
        figures = reports[0].get("figures", {})
        speeds = {name: _sum_of(name, reports) for name in figures if name.endswith(SPEED)}
        return together | ({"figures": {**figures, **speeds}} if speeds else {})

    async def run(self) -> None:
        while True:
            await self.read_some()
            await asyncio.sleep(ROUND_SECONDS)

    async def read_some(self) -> None:
        """One round: read the logs that were not read for the longest time, as many as a round may."""
        workers, jobs = self._running()
        self._read_at = {worker.uid: self._read_at.get(worker.uid, -math.inf) for worker in workers}
        for job in self._reports.keys() - jobs:
            del self._reports[job]
        now = self._clock()
        due = [worker for worker in workers if self._read_at[worker.uid] + POD_SECONDS <= now]
        due.sort(key=lambda worker: self._read_at[worker.uid])
        await asyncio.gather(*(self._read(worker) for worker in due[: self._logs_per_round]))

    def _running(self) -> tuple[list[_Worker], set[str]]:
        """The pods that run, and the uids of the Jobs that are not over."""
        workers: list[_Worker] = []
        jobs: set[str] = set()
        runs = self._cache.keys()
        for run in runs:
            for job in self._cache.jobs(run):
                if not true_condition(job, "Complete", "Failed"):
                    jobs.add(job["metadata"]["uid"])
                    workers += self._workers(run, job)
        return workers, jobs

    def _workers(self, run: Key, job: Mapping[str, Any]) -> Iterator[_Worker]:
        for pod in self._cache.pods(run, job["metadata"]["name"]):
            metadata = pod["metadata"]
            if phase_of(pod) == "Running":
                index = int(metadata.get("annotations", {}).get(INDEX_ANNOTATION, 0))
                yield _Worker(run, job["metadata"]["uid"], index, metadata["uid"], metadata["name"])

    async def _read(self, worker: _Worker) -> None:
        self._read_at[worker.uid] = self._clock()
        try:
            text = await self._api.text(pod_log(worker.run.namespace, worker.name), **TAIL)
        except ApiError as error:  # a container that does not run yet, a node that does not answer, a missing right
            log.debug("progress of pod %s: %s", worker.name, error)
            return
        report = next(filter(None, map(progress_of, reversed(text.encode().split(b"\n")))), None)
        if report and report != self._reports[worker.job].get(worker.index):
            self._reports[worker.job][worker.index] = report
            self._changed(worker.run)


def _sum_of(speed: str, reports: Iterable[Mapping[str, Any]]) -> float:
    figures = [report.get("figures", {}).get(speed) for report in reports if report["done"] < report["total"]]
    return float(sum(value for value in figures if is_number(value) and abs(value) <= LARGEST))
