"""Looking at the cluster for one run: its Jobs and pods from the cache, and what the cache cannot know by asking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sppo_operator.api import Api
from sppo_operator.cache import Cache, Key, Kind
from sppo_operator.decide import Outcome, Step
from sppo_operator.errors import ForbiddenError, NotFoundError
from sppo_operator.facts import Record, timestamp
from sppo_operator.fold import fold
from sppo_operator.jobs import QUEUE_LABEL
from sppo_operator.observe import Observation, lingering, observe
from sppo_operator.passes import AGAIN_SECONDS, Pass
from sppo_operator.progress import ProgressBoard
from sppo_operator.resources import JOB_LABEL, job, pods, workloads
from sppo_operator.result import End
from sppo_operator.status import retry_of


class Observer:
    """All methods raise ApiError where the API server does not answer."""

    def __init__(self, api: Api, cache: Cache, board: ProgressBoard) -> None:
        self._api = api
        self._cache = cache
        self._board = board

    async def observe(self, this: Pass) -> None:
        """Fill in the observations, and the records brought up to date with them."""
        recorded = dict(this.recorded)
        if retry_of(this.run) != this.status.get("observedRetry", ""):
            recorded = {step: replace(record, attempts=record.attempts.renewed()) for step, record in recorded.items()}
        key = Key(this.run.namespace, this.run.name)
        own = [item for item in self._cache.jobs(key) if this.owns(item)]
        running = {step: record for step, record in recorded.items() if record.attempts.last is Outcome.RUNNING}
        gone: dict[Step, End] = {}
        for step, record in running.items():
            name = this.run.job_name(step, record.attempts.made)
            if all(item["metadata"]["name"] != name for item in own):
                found = await self._find(this, name)
                if found is not None:
                    own.append(found)
                elif lingering(await self._pods(this, name), name, this.now):
                    this.look_again(AGAIN_SECONDS)
                else:
                    gone[step] = _vanished(this)
        this.observations = [await self.observe_job(this, item) for item in own]
        this.records = fold(recorded, this.observations, gone, timestamp(this.now))
        for seen in this.live():
            if (progress := self._board.latest(seen.uid)) and seen.step in this.records:
                this.records[seen.step] = replace(this.records[seen.step], progress=progress)
            if seen.look_again_seconds is not None:
                this.look_again(seen.look_again_seconds)

    async def _find(self, this: Pass, name: str) -> dict[str, Any] | None:
        """A Job that the cache does not hold: it was made a moment ago, or it is gone."""
        try:
            found = await self._api.get(job(this.run.namespace, name))
        except NotFoundError:
            return None
        if not this.owns(found):
            return None
        self._cache.put(Kind.JOB, found)
        return found

    async def observe_job(self, this: Pass, item: Mapping[str, Any]) -> Observation:
        """What the cluster shows of one Job; asks for more than the cache holds where the answer will be recorded."""
        name = item["metadata"]["name"]
        its_pods = self._cache.pods(Key(this.run.namespace, this.run.name), name)
        seen = observe(item, its_pods, now=this.now)
        if not _is_news(this, seen):
            return seen
        workload = await self._workload(this, item)
        if seen.end is not None and seen.end.outcome is not Outcome.SUCCEEDED:
            its_pods = await self._pods(this, name)  # the verdict is final
        return observe(item, its_pods, now=this.now, workload=workload)

    async def _pods(self, this: Pass, job_name: str) -> list[dict[str, Any]]:
        """The pods of a Job as they are now: the watch of the pods may be behind that of the Jobs."""
        return await self._api.list(pods(this.run.namespace), selector=f"{JOB_LABEL}={job_name}")

    async def _workload(self, this: Pass, item: Mapping[str, Any]) -> dict[str, Any] | None:
        """Kueue's view of a Job in a queue."""
        if QUEUE_LABEL not in item["metadata"].get("labels", {}):
            return None
        selector = f"kueue.x-k8s.io/job-uid={item['metadata']['uid']}"
        try:
            found = await self._api.list(workloads(this.run.namespace), selector=selector)
        except (NotFoundError, ForbiddenError):  # no Kueue, or no right: the condition Queued says what to check
            return None
        return found[0] if found else None


def _is_news(this: Pass, seen: Observation) -> bool:
    """Whether the end of this attempt is not recorded yet."""
    recorded = this.recorded.get(seen.step, Record()).attempts
    return seen.attempt > recorded.made or (seen.attempt == recorded.made and recorded.last is Outcome.RUNNING)


def _vanished(this: Pass) -> End:
    if this.run.spec["suspend"]:
        return End(outcome=Outcome.SUSPENDED, exit_code=None, message="stopped by spec.suspend")
    failed = any((item["type"], item["status"]) == ("Succeeded", "False") for item in this.status.get("conditions", ()))
    message = "stopped because the run failed" if failed else "its Job was removed before its end was seen"
    return End(outcome=Outcome.VANISHED, exit_code=None, message=message)
