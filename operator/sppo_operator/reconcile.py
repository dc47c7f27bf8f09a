"""One pass over one run: observe, decide, act, report.

Level-triggered: nothing is remembered between two passes but what the API server holds. Job names are addresses, so
two operators at once, a crash at any line, or a stale cache can at most ask for what is there already.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sppo_operator.api import Api
from sppo_operator.cache import Cache, Key, Kind
from sppo_operator.conditions import Holds
from sppo_operator.decide import Action, Fail, Finish, Outcome, Plan, Stage, Start, Step, decide
from sppo_operator.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
    UnavailableError,
    UserError,
)
from sppo_operator.events import events_of
from sppo_operator.facts import Record, Records, timestamp
from sppo_operator.fold import causes, fold
from sppo_operator.jobs import job_manifest, needs_service, service_manifest
from sppo_operator.observe import Observation, lingering, observe
from sppo_operator.progress import ProgressBoard
from sppo_operator.recorder import Recorder
from sppo_operator.resources import job, jobs, pods, run_status, services, workloads
from sppo_operator.result import End
from sppo_operator.settings import Settings
from sppo_operator.spec import Run
from sppo_operator.status import Facts, policies_of, records_of, retry_of, status_of

AGAIN_SECONDS = 2.0
"""When to look again at what the cluster tells nobody about, such as a pod's grace period that runs out."""
QUEUE_SECONDS = 15.0
"""How often the reason why a Job waits in its queue is read again."""
DEFAULT_QUEUE = "default"
"""Where Kueue puts Jobs that name no queue, if the namespace has a LocalQueue of this name."""
DRY_RUN_ATTEMPT = 999999
"""No Job of this name ever exists."""

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Pass:
    """What one pass found out about a run, and what it decided."""

    run: Run
    uid: str
    status: Mapping[str, Any]
    """As the API server holds it."""
    recorded: Mapping[Step, Record]
    """What the status says."""
    image: str
    now: datetime
    observations: list[Observation] = field(default_factory=list)
    records: dict[Step, Record] = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    blocked: str = ""
    again: float | None = None
    """Seconds until time alone can change something."""

    def look_again(self, seconds: float) -> None:
        self.again = seconds if self.again is None else min(self.again, seconds)

    def live(self) -> list[Observation]:
        return [seen for seen in self.observations if seen.end is None]


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
        self._board = board
        self._settings = settings
        self._clock = clock
        self._recorder = Recorder(api, settings.identity)

    async def reconcile(self, key: Key) -> float | None:
        """Bring one run forward; returns the seconds until it has to be looked at again, if nothing happens before."""
        resource = self._cache.run(key)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            return None  # its Jobs go with it: they are its dependents
        this = self._begin(resource)
        await self._observe(this)
        await self._decide(this)
        try:
            await self._act(this)
        except ApiError as error:
            this.blocked = f"The API server does not let the operator go on, which it tries again: {error}"
            await self._report(this, resource)
            raise
        await self._report(this, resource)
        await self._clean_up(this)
        return this.again

    def _begin(self, resource: Mapping[str, Any]) -> Pass:
        run, status = Run.of(resource), resource.get("status", {})
        image = run.spec.get("image") or status.get("image") or self._settings.image
        return Pass(
            run=run,
            uid=resource["metadata"]["uid"],
            status=status,
            recorded=records_of({"status": status}),
            image=image,
            now=self._clock(),
        )

    # Observe

    async def _observe(self, this: Pass) -> None:
        recorded = dict(this.recorded)
        if retry_of(this.run) != this.status.get("observedRetry", ""):
            recorded = {step: replace(record, attempts=record.attempts.renewed()) for step, record in recorded.items()}
        key = Key(this.run.namespace, this.run.name)
        own = [item for item in self._cache.jobs(key) if _owner(item) == this.uid]
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
        this.observations = [await self._observe_job(this, item) for item in own]
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
        if _owner(found) != this.uid:
            return None
        self._cache.put(Kind.JOB, found)
        return found

    async def _observe_job(self, this: Pass, item: Mapping[str, Any]) -> Observation:
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
        return await self._api.list(pods(this.run.namespace), selector=f"batch.kubernetes.io/job-name={job_name}")

    async def _workload(self, this: Pass, item: Mapping[str, Any]) -> dict[str, Any] | None:
        """Kueue's view of a Job in a queue."""
        if "kueue.x-k8s.io/queue-name" not in item["metadata"].get("labels", {}):
            return None
        selector = f"kueue.x-k8s.io/job-uid={item['metadata']['uid']}"
        try:
            found = await self._api.list(workloads(this.run.namespace), selector=selector)
        except (NotFoundError, ForbiddenError):  # no Kueue, or no right: the condition Queued says what to check
            return None
        return found[0] if found else None

    # Decide

    async def _decide(self, this: Pass) -> None:
        refused = await self._refused(this)
        plan = Plan(iterations=this.run.iterations, retries=this.run.retries, parallel=this.run.parallel_evaluation)
        history = {step: record.attempts for step, record in this.records.items()}
        this.actions = (refused,) if refused else decide(plan, history)

    async def _refused(self, this: Pass) -> Fail | None:
        """Why no Job of this run can be made; asked whenever the run or its retry annotation changed."""
        seen = (this.status.get("observedGeneration"), this.status.get("observedRetry", ""))
        if seen == (this.run.generation, retry_of(this.run)):
            return _refused_before(this)
        for stage in Stage:
            step = Step(0 if stage is Stage.PREPARE else 1, stage)
            try:
                manifest = self._manifest(this, step, DRY_RUN_ATTEMPT)
                await self._api.create(jobs(this.run.namespace), manifest, dry_run=True)
            except (RefusedError, UserError) as error:
                return _refusal(f"{stage} cannot be made: {error}; correct the run and apply it again")
            except (ForbiddenError, UnavailableError):
                return None  # a quota, a missing right, a webhook's server: it blocks the run for as long as it lasts
        return None

    def _manifest(self, this: Pass, step: Step, attempt: int) -> dict[str, Any]:
        charged = this.records.get(step, Record()).attempts.charged
        left = max(this.run.retries - charged, 0)
        return job_manifest(this.run, this.uid, step, attempt, image=this.image, retries_left=left)

    # Act

    async def _act(self, this: Pass) -> None:
        failed = isinstance(this.actions[-1], Fail)
        for seen in this.observations:
            if seen.end is None:
                await self._steer(this, seen, failed)
            elif seen.lost and not seen.going:
                await self._delete(this, seen)
        for action in this.actions:
            if isinstance(action, Start) and not this.run.spec["suspend"]:
                await self._start(this, action)

    async def _steer(self, this: Pass, seen: Observation, failed: bool) -> None:
        """Stop what runs for nobody, and suspend and resume."""
        suspend = this.run.spec["suspend"]
        if seen.going:
            this.look_again(AGAIN_SECONDS)
        elif failed or not _is_current(this, seen) or (suspend and seen.queue) or _is_misplaced(this.run, seen):
            await self._delete(this, seen)  # Kueue would start a suspended Job of its queue again
        elif seen.suspended != suspend and not seen.queue:
            await self._suspend(this, seen, suspend)

    async def _suspend(self, this: Pass, seen: Observation, suspend: bool) -> None:
        try:
            patched = await self._api.merge_patch(job(this.run.namespace, seen.job), {"spec": {"suspend": suspend}})
        except NotFoundError:
            return  # somebody deleted it, and the watch will say so
        self._cache.put(Kind.JOB, patched)

    async def _start(self, this: Pass, action: Start) -> None:
        record = this.records.get(action.step, Record())
        if action.delay_seconds and record.finished:
            due = datetime.fromisoformat(record.finished).timestamp() + action.delay_seconds
            if (left := due - this.now.timestamp()) > 0:
                this.look_again(left)
                return
        if action.step.stage is Stage.TRAIN and needs_service(this.run):
            await self._ensure_service(this)
        created = await self._create(this, self._manifest(this, action.step, action.attempt))
        if created is not None:
            seen = await self._observe_job(this, created)  # one that was found may have ended
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
            if _owner(created) != this.uid:
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

    # Report

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
            fresh = (this.now - datetime.fromisoformat(seen.created)).total_seconds() < QUEUE_SECONDS
            this.look_again(AGAIN_SECONDS if fresh else QUEUE_SECONDS)
        queued = {seen.step: seen.waiting for seen in waiting}
        return Holds(suspended=this.run.spec["suspend"] and not over, queued=queued, stuck=stuck, blocked=this.blocked)

    async def _clean_up(self, this: Pass) -> None:
        """Remove finished Jobs whose end is recorded, after their retention."""
        keep = this.run.spec["retention"]["finishedJobsSeconds"]
        for seen in this.observations:
            if seen.end is None or seen.going:
                continue
            left = datetime.fromisoformat(seen.finished).timestamp() + keep - this.now.timestamp()
            if left <= 0:
                await self._delete(this, seen)
            else:
                this.look_again(left)


def _owner(item: Mapping[str, Any]) -> str:
    """The uid of the object that controls this one."""
    owners = item["metadata"].get("ownerReferences", ())
    return next((owner["uid"] for owner in owners if owner.get("controller")), "")


def _is_news(this: Pass, seen: Observation) -> bool:
    """Whether the end of this attempt is not recorded yet."""
    recorded = this.recorded.get(seen.step, Record()).attempts
    return seen.attempt > recorded.made or (seen.attempt == recorded.made and recorded.last is Outcome.RUNNING)


def _is_current(this: Pass, seen: Observation) -> bool:
    """Whether this is the attempt that the run waits for; another one came back after it was given up."""
    recorded = this.records[seen.step].attempts
    return seen.attempt == recorded.made and recorded.last is Outcome.RUNNING


def _is_misplaced(run: Run, seen: Observation) -> bool:
    """Whether it waits in another queue, or with another priority, than the run names now."""
    named = run.spec.get("queue", {"name": DEFAULT_QUEUE})
    waits = bool(seen.queue) and seen.suspended
    return waits and (seen.queue, seen.priority) != (named["name"], named.get("priorityClass", ""))


def _vanished(this: Pass) -> End:
    if this.run.spec["suspend"]:
        return End(outcome=Outcome.SUSPENDED, exit_code=None, message="stopped by spec.suspend")
    failed = any((item["type"], item["status"]) == ("Succeeded", "False") for item in this.status.get("conditions", ()))
    message = "stopped because the run failed" if failed else "its Job was removed before its end was seen"
    return End(outcome=Outcome.VANISHED, exit_code=None, message=message)


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
