"""The conditions of a run, from what was recorded and decided; every reason says when it surfaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sppo_operator.decide import Action, Fail, Finish, GiveUp, Start, Step, Wait
from sppo_operator.facts import Records, falling_iteration

RUNNING = "Running"  # surfaces while stages run or are about to start
FINISHED = "Finished"  # surfaces when all iterations are trained
STOPPED = "Stopped"  # surfaces when the executor went away in an orderly way before the end
BLOCKED = "Blocked"  # surfaces when the API server does not let the operator do the next step
PODS_STUCK = "PodsStuck"  # surfaces when a pod has not started for a minute
QUEUED = "Queued"  # surfaces while all that could run waits for the queue
NOT_QUEUED = "NotQueued"  # surfaces when no stage waits for a queue
SUSPENDED = "Suspended"  # surfaces while spec.suspend is true
NOT_SUSPENDED = "NotSuspended"  # surfaces while spec.suspend is false
AS_EXPECTED = "AsExpected"  # surfaces while nothing hurts the result
EVALUATION_FAILED = "EvaluationFailed"  # surfaces when an evaluation failed for good; training goes on
LIKELIHOOD_FALLING = "LikelihoodFalling"  # surfaces when the log-ratios of best and worst both keep falling
# A failed run shows the reason of its `decide.Fail`: UserFault, RetriesExhausted, or one of the reconciler's refusals.

GO_ON = "When that is mended, change the annotation sppo.dev/retry, and the run goes on from what is finished."

TRIED_AGAIN = "is tried again"
"""In the message of a run that waits between two attempts."""

MESSAGE_CHARACTERS = 2048  # the CRD's bound


@dataclass(frozen=True, kw_only=True)
class Holds:
    """What keeps a run from getting on without any stage having failed."""

    stopped: bool = False
    """The executor is going away before the end, and says so."""
    suspended: bool = False
    queued: Mapping[Step, str] = field(default_factory=dict)
    """The steps whose Jobs wait for admission, and what the queue says about it."""
    stuck: str = ""
    """Why a pod does not start, and what to do."""
    blocked: str = ""
    """What the API server refused to the operator, and what to do."""


NOTHING = Holds()


@dataclass(frozen=True)
class Condition:
    type: str
    status: str
    """True, False or Unknown."""
    reason: str
    message: str


def conditions(records: Records, actions: Iterable[Action], holds: Holds = NOTHING) -> tuple[Condition, ...]:
    actions = tuple(actions)
    return (
        _succeeded(actions),
        _progressing(records, actions, holds),
        _queued(holds),
        _suspended(holds),
        _degraded(records, actions),
    )


def merged(
    old: Iterable[Mapping[str, Any]], new: Iterable[Condition], generation: int, now: str
) -> list[dict[str, Any]]:
    """The conditions as the resource holds them; the time of one moves only when its status does."""
    before = {condition["type"]: condition for condition in old}
    return [
        {
            "type": condition.type,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message[:MESSAGE_CHARACTERS],
            "observedGeneration": generation,
            "lastTransitionTime": before[condition.type]["lastTransitionTime"]
            if before.get(condition.type, {}).get("status") == condition.status
            else now,
        }
        for condition in new
    ]


def _succeeded(actions: tuple[Action, ...]) -> Condition:
    match actions[-1]:
        case Fail(_, reason, message):
            return Condition("Succeeded", "False", reason, message)
        case Finish():
            return Condition("Succeeded", "True", FINISHED, "All iterations are trained.")
    return Condition("Succeeded", "Unknown", RUNNING, "The run has not ended.")


def _progressing(records: Records, actions: tuple[Action, ...], holds: Holds) -> Condition:
    match actions[-1]:
        case Fail(_, reason, message):
            return Condition("Progressing", "False", reason, f"{message}. {GO_ON}")
        case Finish():
            return Condition("Progressing", "False", FINISHED, "Nothing is left to do.")
    for reason, message in (
        (STOPPED, "The command was stopped: start it again, and it goes on." if holds.stopped else ""),
        (SUSPENDED, "Set spec.suspend to false, and the run goes on." if holds.suspended else ""),
        (BLOCKED, holds.blocked),
        (PODS_STUCK, holds.stuck),
    ):
        if message:
            return Condition("Progressing", "False", reason, message)
    active = [action for action in actions if isinstance(action, Wait | Start)]
    if all(action.step in holds.queued for action in active):
        return Condition("Progressing", "True", QUEUED, _waiting(holds))
    doing = "; ".join(_doing(records, action, holds) for action in active)
    return Condition("Progressing", "True", RUNNING, f"{doing}.")


def _doing(records: Records, action: Wait | Start, holds: Holds) -> str:
    if action.step in holds.queued:
        return f"{action.step} waits in the queue"
    if isinstance(action, Start) and action.delay_seconds and (newest := records[action.step].newest):
        last = newest[-1]
        why = last.message or last.outcome.value
        return f"{action.step} {TRIED_AGAIN} {action.delay_seconds:.0f} s after attempt {last.number} ended: {why}"
    return f"{action.step} is at work"


def _queued(holds: Holds) -> Condition:
    if holds.queued:
        return Condition("Queued", "True", QUEUED, _waiting(holds))
    return Condition("Queued", "False", NOT_QUEUED, "No stage waits for a queue.")


def _waiting(holds: Holds) -> str:
    return "; ".join(f"{step} waits: {why}" for step, why in holds.queued.items())


def _suspended(holds: Holds) -> Condition:
    if holds.suspended:
        message = "spec.suspend is true: no pod runs; set it to false, and the run goes on where it was."
        return Condition("Suspended", "True", SUSPENDED, message)
    return Condition("Suspended", "False", NOT_SUSPENDED, "spec.suspend holds nothing back.")


def _degraded(records: Records, actions: tuple[Action, ...]) -> Condition:
    for action in actions:
        if isinstance(action, GiveUp):
            message = (
                f"{action.step} failed for good, and the run goes on without it: {action.message}; "
                "mend the cause, then retry the run"
            )
            return Condition("Degraded", "True", EVALUATION_FAILED, message)
    iteration = falling_iteration(records)
    if iteration is not None:
        message = (
            f"In iteration {iteration} the log-ratios of the best and of the worst responses both fell below those of "
            "the iteration before: training only lowers likelihoods; use a larger objective.beta (a smaller eta) in a "
            "new run."
        )
        return Condition("Degraded", "True", LIKELIHOOD_FALLING, message)
    return Condition("Degraded", "False", AS_EXPECTED, "Nothing hurts the result.")
