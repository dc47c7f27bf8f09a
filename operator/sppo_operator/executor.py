"""Acting on the cluster for one run: Jobs are made, suspended, resumed and deleted here, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sppo_operator.api import Api
from sppo_operator.cache import Cache, Kind
from sppo_operator.decide import Fail, Outcome, Stage, Start
from sppo_operator.errors import AlreadyExistsError, ConflictError, ForbiddenError, NotFoundError
from sppo_operator.facts import Record, timestamp
from sppo_operator.fold import fold
from sppo_operator.jobs import needs_service, service_manifest
from sppo_operator.observe import Observation
from sppo_operator.observer import Observer
from sppo_operator.passes import AGAIN_SECONDS, DRY_RUN_ATTEMPT, Pass
from sppo_operator.resources import job, jobs, services
from sppo_operator.spec import Run

DEFAULT_QUEUE = "default"
"""Where Kueue puts Jobs that name no queue, if the namespace has a LocalQueue of this name."""


class Executor:
    """All methods raise ApiError where the API server does not let them act."""

    def __init__(self, api: Api, cache: Cache, observer: Observer) -> None:
        self._api = api
        self._cache = cache
        self._observer = observer

    async def act(self, this: Pass) -> None:
        """Carry out what was decided; what runs for nobody is stopped first."""
        failed = isinstance(this.actions[-1], Fail)
        for seen in this.observations:
            if seen.end is None:
                await self._steer(this, seen, failed)
            elif seen.lost and not seen.going:
                await self._delete(this, seen)
        for action in this.actions:
            if isinstance(action, Start) and not this.run.spec["suspend"]:
                await self._start(this, action)

    async def clean_up(self, this: Pass) -> None:
        """Remove finished Jobs whose end is recorded, after their retention."""
        keep = this.run.spec["retention"]["finishedJobsSeconds"]
        for seen in this.observations:
            if seen.end is None or seen.going:
                continue
            if (left := keep - this.seconds_since(seen.finished)) <= 0:
                await self._delete(this, seen)
            else:
                this.look_again(left)

    async def _steer(self, this: Pass, seen: Observation, failed: bool) -> None:
        """Stop what runs for nobody, and suspend and resume."""
        suspend = this.run.spec["suspend"]
        if seen.going:
            this.look_again(AGAIN_SECONDS)
        elif failed or not _is_current(this, seen) or _is_misplaced(this.run, seen) or _is_outdated(this.run, seen):
            await self._delete(this, seen)
        elif suspend and seen.queue:
            await self._delete(this, seen)  # Kueue would start it again
        elif seen.unreplaced and await self._namespace_is_going(this, seen):
            await self._delete(this, seen)  # or its pods, which wait to be replaced, would keep the namespace for ever
        elif seen.suspended != suspend and not seen.queue:
            await self._suspend(this, seen, suspend)

    async def _namespace_is_going(self, this: Pass, seen: Observation) -> bool:
        try:
            manifest = this.manifest(seen.step, DRY_RUN_ATTEMPT)
            await self._api.create(jobs(this.run.namespace), manifest, dry_run=True)
        except ForbiddenError as error:
            return "being terminated" in error.message
        return False

    async def _suspend(self, this: Pass, seen: Observation, suspend: bool) -> None:
        try:
            patched = await self._api.merge_patch(job(this.run.namespace, seen.job), {"spec": {"suspend": suspend}})
        except NotFoundError:
            return  # somebody deleted it, and the watch will say so
        self._cache.put(Kind.JOB, patched)

    async def _start(self, this: Pass, action: Start) -> None:
        record = this.records.get(action.step, Record())
        waited = this.seconds_since(record.finished) if record.finished else action.delay_seconds
        if waited < action.delay_seconds:
            this.look_again(action.delay_seconds - waited)
            return
        if action.step.stage is Stage.TRAIN and needs_service(this.run):
            await self._ensure_service(this)
        created = await self._create(this, this.manifest(action.step, action.attempt))
        if created is not None:
            seen = await self._observer.observe_job(this, created)  # one that was found may have ended
            this.observations.append(seen)
            this.records = fold(this.records, [seen], {}, timestamp(this.now))
            if seen.end is not None:
                this.look_again(0.0)  # no watch will tell what is in the cache already

    async def _create(self, this: Pass, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
        """Create the Job, or find it there; None while one of the same name, of an earlier run, is going away."""
        try:
            created = await self._api.create(jobs(this.run.namespace), manifest)
        except AlreadyExistsError:
            try:
                created = await self._api.get(job(this.run.namespace, manifest["metadata"]["name"]))
            except NotFoundError:  # it has just gone
                this.look_again(AGAIN_SECONDS)
                return None
            if not this.owns(created):
                this.look_again(AGAIN_SECONDS)
                if "deletionTimestamp" not in created["metadata"]:
                    this.blocked = f"Job {created['metadata']['name']} belongs to somebody else: delete or rename it."
                return None
        self._cache.put(Kind.JOB, created)
        return created

    async def _ensure_service(self, this: Pass) -> None:
        manifest = service_manifest(this.run, this.uid)
        try:
            await self._api.create(services(this.run.namespace), manifest)
        except AlreadyExistsError:
            return

    async def _delete(self, this: Pass, seen: Observation) -> None:
        try:
            await self._api.delete(job(this.run.namespace, seen.job), uid=seen.uid)
        except (NotFoundError, ConflictError):  # it is gone, and another one may have its name
            return


def _is_current(this: Pass, seen: Observation) -> bool:
    """Whether this is the attempt that the run waits for; another one came back after it was given up."""
    recorded = this.records[seen.step].attempts
    return seen.attempt == recorded.made and recorded.last is Outcome.RUNNING


def _is_outdated(run: Run, seen: Observation) -> bool:
    """Whether its pods cannot start, and the run was changed since: that may have been the cure."""
    return bool(seen.stuck) and seen.generation < run.generation


def _is_misplaced(run: Run, seen: Observation) -> bool:
    """Whether it waits in another queue, or with another priority, than the run names now."""
    named = run.spec.get("queue", {"name": DEFAULT_QUEUE})
    waits = bool(seen.queue) and seen.suspended
    return waits and (seen.queue, seen.priority) != (named["name"], named.get("priorityClass", ""))
