"""What the cluster shows of one attempt: its Job, its pods and, in a queue, its Workload. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sppo_operator import ending, kueue
from sppo_operator.decide import Outcome, Stage, Step
from sppo_operator.facts import timestamp
from sppo_operator.jobs import (
    ATTEMPT_LABEL,
    CONTAINER,
    GENERATION_ANNOTATION,
    ITERATION_LABEL,
    PRIORITY_LABEL,
    QUEUE_LABEL,
    STAGE_LABEL,
)
from sppo_operator.objects import (
    Object,
    conditions_of,
    deletion_asked,
    gpus_of,
    has_ended,
    is_kept,
    lost_at,
    moment,
    name_of,
    true_condition,
)
from sppo_operator.resources import JOB_LABEL, JOB_UID_LABEL
from sppo_operator.result import End
from sppo_operator.stuck import stuck

REPLACED_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the cluster shows of one attempt."""

    job: str
    uid: str
    """Of the Job."""
    step: Step
    attempt: int
    image: str
    created: str
    generation: int = 0
    """The version of the run that the Job was made from."""
    end: End | None = None
    """None while it is live, and while its pods are still ending."""
    finished: str = ""
    """When it ended."""
    unreplaced: bool = False
    """The Job controller does not replace a pod that was deleted, which it does in a second if it may."""
    lost: bool = False
    """It ended with its nodes, and its Job has not: delete it, or it goes on beside the next attempt."""
    suspended: bool = False
    """Job.spec.suspend."""
    queue: str = ""
    """The LocalQueue that has to admit it."""
    priority: str = ""
    """Its WorkloadPriorityClass."""
    going: bool = False
    """It is being deleted: neither live nor ended until it is gone."""
    stuck: str = ""
    """Why a pod has not started for a minute, and the remedy."""
    look_again_seconds: float | None = None
    """When time alone will change this observation."""
    evictions: int = 0
    gpus: int = 0
    """Requested by its pods together."""
    active_since: str | None = None
    """Since when its pods may run."""
    paused_at: str | None = None
    """Since when they may not, if the Job is suspended."""
    waiting: str = ""
    """What Kueue says about why it waits."""


def observe(job: Object, pods: Sequence[Object], *, now: datetime, workload: Object | None = None) -> Observation:
    """What there is to know about the attempt of a Job. Pods of another Job of the same name are left out."""
    pods = [pod for pod in pods if _belongs(pod, job)]
    labels, queue = job["metadata"]["labels"], job["metadata"]["labels"].get(QUEUE_LABEL, "")
    suspended = bool(job["spec"].get("suspend"))
    # Not spec.suspend, which is set before pods are stopped or made.
    suspension = true_condition(job, "Suspended")
    seen = Observation(
        job=name_of(job),
        uid=job["metadata"]["uid"],
        step=Step(int(labels[ITERATION_LABEL]), Stage(labels[STAGE_LABEL])),
        attempt=int(labels[ATTEMPT_LABEL]),
        image=_image(job),
        created=job["metadata"]["creationTimestamp"],
        generation=int(job["metadata"].get("annotations", {}).get(GENERATION_ANNOTATION, 0)),
        suspended=suspended,
        queue=queue,
        priority=labels.get(PRIORITY_LABEL, ""),
        going="deletionTimestamp" in job["metadata"],
        evictions=kueue.evictions(workload),
        gpus=gpus_of(job),
        active_since=None if suspension else job.get("status", {}).get("startTime"),
        paused_at=suspension["lastTransitionTime"] if suspension else None,
    )
    if seen.going:
        return seen
    if over := true_condition(job, "Complete", "Failed"):
        return _ended(seen, job, pods, over, over["lastTransitionTime"], workload)
    if suspended:
        return replace(seen, waiting=kueue.why_waiting(workload, queue)) if queue else seen
    return _live(seen, job, pods, now, workload)


def lingering(pods: Iterable[Object], job_name: str, now: datetime) -> bool:
    """Whether pods of a Job that is gone may still run: they are neither over nor lost with their nodes."""
    return any(pod["metadata"].get("labels", {}).get(JOB_LABEL) == job_name and _may_run(pod, now) for pod in pods)


def _live(
    seen: Observation, job: Object, pods: Sequence[Object], now: datetime, workload: Object | None
) -> Observation:
    """A Job that has no verdict yet. It never comes if pods cannot end because their nodes do not answer."""
    verdict = true_condition(job, "SuccessCriteriaMet", "FailureTarget")
    left = [pod for pod in pods if not has_ended(pod)]
    deadlines = [deadline for pod in left if (deadline := lost_at(pod))]
    if left and len(deadlines) == len(left):
        if (remaining := (max(deadlines) - now).total_seconds()) > 0:
            return replace(seen, look_again_seconds=remaining)
        return replace(_ended(seen, job, pods, verdict, timestamp(max(deadlines)), workload), lost=True)
    if verdict:
        return seen
    why, again = stuck(job, pods, now)
    overdue = [(now - moment(pod["metadata"]["deletionTimestamp"])).total_seconds() for pod in pods if is_kept(pod)]
    unreplaced = max(overdue, default=0.0) >= REPLACED_SECONDS
    if overdue and not unreplaced:
        again = min(REPLACED_SECONDS - max(overdue), math.inf if again is None else again)
    return replace(seen, stuck=why, unreplaced=unreplaced, look_again_seconds=again)


def _ended(
    seen: Observation,
    job: Object,
    pods: Sequence[Object],
    condition: Object | None,
    finished: str,
    workload: Object | None,
) -> Observation:
    if condition is None:
        end = ending.lost([pod for pod in pods if not has_ended(pod)])
    elif condition["type"] in ("Complete", "SuccessCriteriaMet"):
        end = ending.succeeded(job, pods)
    else:
        end = ending.failed(job, pods, condition)
    if end.outcome is Outcome.DISRUPTED:
        end = _on_purpose(seen, end, job, pods, workload)
    return replace(seen, end=end, finished=finished)


def _on_purpose(seen: Observation, end: End, job: Object, pods: Sequence[Object], workload: Object | None) -> End:
    """What looks like a disruption may be the doing of the queue or of the user."""
    stopped = seen.suspended or _stopped_before_resumed(job, pods)
    if seen.queue and (stopped or kueue.is_evicted(workload)):
        return replace(end, outcome=Outcome.EVICTED, message=kueue.why_evicted(workload))
    if stopped and not seen.queue:
        return replace(end, outcome=Outcome.SUSPENDED, message="stopped by spec.suspend")
    return end


def _stopped_before_resumed(job: Object, pods: Sequence[Object]) -> bool:
    """Whether the Job failed of a suspension that is over: it may be resumed while its pods still end."""
    suspension = conditions_of(job).get("Suspended")
    if suspension is None or suspension["status"] == "True":  # a Job that fails at once keeps the condition
        return suspension is not None
    resumed = moment(suspension["lastTransitionTime"])
    return any(asked <= resumed for pod in pods if (asked := deletion_asked(pod)))


def _may_run(pod: Object, now: datetime) -> bool:
    deadline = lost_at(pod)
    return not has_ended(pod) and (deadline is None or now < deadline)


def _belongs(pod: Object, job: Object) -> bool:
    return bool(pod["metadata"].get("labels", {}).get(JOB_UID_LABEL) == job["metadata"]["uid"])


def _image(job: Object) -> str:
    containers = job["spec"]["template"]["spec"]["containers"]
    return next(str(container["image"]) for container in containers if container["name"] == CONTAINER)
