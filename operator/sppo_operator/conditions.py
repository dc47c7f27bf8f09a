"""The conditions of a run, from what was recorded and decided; every reason says when it surfaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sppo_operator.decide import Action, Fail, Finish, GiveUp, Start, Wait
from sppo_operator.facts import Records, falling_iteration

RUNNING = "Running"  # surfaces while stages run or are about to start
FINISHED = "Finished"  # surfaces when all iterations are trained
STOPPED = "Stopped"  # surfaces when the executor went away in an orderly way before the end
NOT_QUEUED = "NotQueued"  # surfaces when no queue has to admit the run
NOT_SUSPENDED = "NotSuspended"  # surfaces while spec.suspend is false
AS_EXPECTED = "AsExpected"  # surfaces while nothing hurts the result
EVALUATION_FAILED = "EvaluationFailed"  # surfaces when an evaluation failed for good; training goes on
LIKELIHOOD_FALLING = "LikelihoodFalling"  # surfaces when the log-ratios of best and worst both keep falling
# A failed run shows the reason of `decide.Fail`: UserFault or RetriesExhausted.

MESSAGE_CHARACTERS = 2048  # the CRD's bound


@dataclass(frozen=True)
class Condition:
    type: str
    status: str
    """True, False or Unknown."""
    reason: str
    message: str


def conditions(records: Records, actions: Iterable[Action], *, stopped: bool) -> tuple[Condition, ...]:
    actions = tuple(actions)
    return (
        _succeeded(actions),
        _progressing(actions, stopped),
        Condition("Queued", "False", NOT_QUEUED, "No queue has to admit this run."),
        Condition("Suspended", "False", NOT_SUSPENDED, "spec.suspend is false."),
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


def _progressing(actions: tuple[Action, ...], stopped: bool) -> Condition:
    match actions[-1]:
        case Fail(_, reason, message):
            return Condition("Progressing", "False", reason, message)
        case Finish():
            return Condition("Progressing", "False", FINISHED, "Nothing is left to do.")
    if stopped:
        return Condition("Progressing", "False", STOPPED, "The command was stopped: start it again, and it goes on.")
    running = ", ".join(str(action.step) for action in actions if isinstance(action, Wait | Start))
    return Condition("Progressing", "True", RUNNING, f"At work: {running}.")


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
