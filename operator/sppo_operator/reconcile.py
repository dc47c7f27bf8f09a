"""One pass over one run: observe, decide, act, report.

Level-triggered: nothing is remembered between two passes but what the API server holds. Job names are addresses, so
two operators at once, a crash at any line, or a stale cache can at most ask for what is there already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sppo_operator.api import Api
from sppo_operator.cache import Cache, Key, Kind
from sppo_operator.conditions import Holds
from sppo_operator.decide import Fail, Finish, Plan, Stage, Step, decide
from sppo_operator.errors import ApiError, ForbiddenError, RefusedError, UnavailableError, UserError
from sppo_operator.events import events_of
from sppo_operator.executor import Executor
from sppo_operator.facts import Records, timestamp
from sppo_operator.fold import causes, gpu_seconds
from sppo_operator.observer import Observer
from sppo_operator.passes import AGAIN_SECONDS, DRY_RUN_ATTEMPT, Pass
from sppo_operator.progress import ProgressBoard
from sppo_operator.recorder import Recorder
from sppo_operator.resources import jobs, run_status
from sppo_operator.settings import Settings
from sppo_operator.spec import Run
from sppo_operator.status import Facts, policies_of, records_of, retry_of, status_of

QUEUE_SECONDS = 15.0
"""How often the reason why a Job waits in its queue is read again."""


class Reconciler:
    """Brings runs forward. All methods raise ApiError where the API server does not answer; the caller retries."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        board: ProgressBoard,
        settings: Settings,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._cache = cache
        self._settings = settings
        self._clock = clock
        self._observer = Observer(api, cache, board)
        self._executor = Executor(api, cache, self._observer)
        self._recorder = Recorder(api, settings.identity)

    async def reconcile(self, key: Key) -> float | None:
        """Bring one run forward; returns the seconds until it has to be looked at again, if nothing happens before."""
        resource = self._cache.run(key)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            return None  # its Jobs go with it: they are its dependents
        this = self._begin(resource)
        await self._observer.observe(this)
        await self._decide(this)
        try:
            await self._executor.act(this)
        except ApiError as error:
            this.blocked = f"The API server does not let the operator go on, which it tries again: {error}"
            await self._report(this, resource)
            raise
        await self._report(this, resource)
        await self._executor.clean_up(this)
        return this.again

    def _begin(self, resource: Mapping[str, Any]) -> Pass:
        run, status = Run.of(resource), resource.get("status", {})
        image = run.spec.get("image") or status.get("image") or self._settings.image
        return Pass(
            run=run,
            uid=resource["metadata"]["uid"],
            status=status,
            recorded=records_of(resource),
            image=image,
            now=self._clock(),
        )

    async def _decide(self, this: Pass) -> None:
        plan = Plan(iterations=this.run.iterations, retries=this.run.retries, parallel=this.run.parallel_evaluation)
        this.actions = decide(plan, {step: record.attempts for step, record in this.records.items()})
        if not isinstance(this.actions[-1], Finish) and (refused := await self._refused(this)):
            this.actions = (refused,)

    async def _refused(self, this: Pass) -> Fail | None:
        """Why no Job of this run can be made; asked whenever the run or its retry annotation changed."""
        seen = (this.status.get("observedGeneration"), this.status.get("observedRetry", ""))
        if seen == (this.run.generation, retry_of(this.run)):
            return _refused_before(this)
        for stage in Stage:
            step = Step(0 if stage is Stage.PREPARE else 1, stage)
            try:
                manifest = this.manifest(step, DRY_RUN_ATTEMPT)
                await self._api.create(jobs(this.run.namespace), manifest, dry_run=True)
            except UserError as error:
                return _refusal(str(error))
            except RefusedError as error:
                remedy = f"correct spec.stages.{stage}.template and apply the run again"
                return _refusal(f"the API server refuses the Job of {stage}: {error.message}; {remedy}")
            except (ForbiddenError, UnavailableError):
                return None  # a quota, a missing right, a webhook's server: it blocks the run for as long as it lasts
        return None

    async def _report(self, this: Pass, resource: Mapping[str, Any]) -> None:
        """Write the status if it says anything new, and then tell the news as Events."""
        status = status_of(this.run, self._facts(this), this.actions, this.status, timestamp(this.now))
        if status == this.status:
            return
        path = run_status(this.run.namespace, this.run.name)
        written = await self._api.replace(path, {**resource, "status": status})
        self._cache.put(Kind.RUN, written)
        await self._recorder.tell(resource, events_of(this.status, status))

    def _facts(self, this: Pass) -> Facts:
        failures = Counter(this.status.get("failures", {})) + causes(this.recorded, this.records)
        return Facts(
            records=this.records,
            failures=failures,
            gpu_seconds=Counter(this.status.get("gpuSeconds", {})) + gpu_seconds(this.recorded, this.records),
            policies=policies_of(this.status) | _policies(this.run, this.records),
            image=this.image,
            holds=self._holds(this),
        )

    def _holds(self, this: Pass) -> Holds:
        live = this.live()
        over = isinstance(this.actions[-1], Fail | Finish)
        stuck = "; ".join(seen.stuck for seen in live if seen.stuck)
        waiting = [seen for seen in live if seen.queue and seen.suspended and not seen.going]
        for seen in waiting:  # Kueue says why in the first seconds
            fresh = this.seconds_since(seen.created) < QUEUE_SECONDS
            this.look_again(AGAIN_SECONDS if fresh else QUEUE_SECONDS)
        queued = {seen.step: seen.waiting for seen in waiting}
        return Holds(suspended=this.run.spec["suspend"] and not over, queued=queued, stuck=stuck, blocked=this.blocked)


def _refused_before(this: Pass) -> Fail | None:
    """The refusal that the status holds: nothing changed since, so it still stands."""
    for condition in this.status.get("conditions", ()):
        if condition["type"] == "Succeeded" and condition["reason"] == "Refused":
            return _refusal(condition["message"])
    return None


def _refusal(message: str) -> Fail:
    return Fail(Step(0, Stage.PREPARE), "Refused", message)


def _policies(run: Run, records: Records) -> dict[int, str]:
    """Where the trained models are, as model servers on Kubernetes write it: pvc://claim/path."""
    claim = run.spec["workspace"].get("claimName")
    return {
        step.iteration: f"pvc://{claim}/{run.namespace}/{run.name}/{record.model}"
        for step, record in records.items()
        if record.model
    }
