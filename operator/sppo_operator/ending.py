"""How an attempt ended, from its Job and what is left of its pods (Kubernetes 1.33 and later, pkg/controller/job).

A Job that failed names the rule of its pod failure policy that decided. Where none did, all its pods are asked: the
user's fault comes before a disruption, and that before the application's failure, as the former bring about the latter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sppo_operator.decide import Outcome
from sppo_operator.jobs import STAGE_LABEL
from sppo_operator.objects import (
    Object,
    deletion_asked,
    has_ended,
    moment,
    name_of,
    one_line,
    phase_of,
    stage_state,
    true_condition,
)
from sppo_operator.policy import DISRUPTION_RULE, TERMINATED_RULE, USER_FAULT, USER_FAULT_RULE
from sppo_operator.result import End, end_of, is_result, parsed

RULE: Final = re.compile(r"(?:Container \S+ for pod|Pod) [^/\s]+/(?P<pod>\S+) .*FailJob rule at index (?P<rule>\d+)$")
OUTCOMES: Final = {
    str(USER_FAULT_RULE): Outcome.USER_FAULT,
    str(DISRUPTION_RULE): Outcome.DISRUPTED,
    str(TERMINATED_RULE): Outcome.DISRUPTED,
}
SHARD_REASONS: Final = ("FailedIndexes", "MaxFailedIndexesExceeded")
"""A shard used up its retries."""
GRAVITY: Final = (Outcome.USER_FAULT, Outcome.DISRUPTED, Outcome.FAILED)
QUOTED_CHARACTERS: Final = 300


def succeeded(job: Object, pods: Sequence[Object]) -> End:
    """The end of a Job that is Complete: one of its pods has the result, the others say that their shard is done."""
    done = sorted((pod for pod in pods if phase_of(pod) == "Succeeded"), key=name_of)
    for pod in done:
        result = _message(pod)
        if is_result(parsed(result)):
            return end_of(0, result, _log(pod))
    if len(done) < job["spec"]["completions"]:
        message = "its pods were removed before the result was read: the next attempt finds what they finished"
        return End(outcome=Outcome.VANISHED, exit_code=None, message=message)
    return end_of(0, b"", _log(done[0]))


def failed(job: Object, pods: Sequence[Object], condition: Object) -> End:
    """The end of a Job that failed; `condition` is its Failed or FailureTarget."""
    reason, message = condition.get("reason", ""), condition.get("message", "")
    if reason == "DeadlineExceeded":
        return _overdue(job)
    if (rule := RULE.match(message)) and rule["rule"] in OUTCOMES:
        return _by_rule(job, pods, OUTCOMES[rule["rule"]], rule["pod"], message)
    if reason in SHARD_REASONS:
        # Disrupted shards were replaced, and are no reason. The budget of the shard was that of the whole step.
        end = _gravest(job, pods, (Outcome.USER_FAULT, Outcome.FAILED), condition, newest=True)
        return replace(end, failures=job["spec"]["backoffLimitPerIndex"] + 1)
    return _gravest(job, pods, GRAVITY, condition)


def lost(pods: Sequence[Object]) -> End:
    """The end of a Job whose remaining pods are on nodes that do not answer."""
    nodes = sorted({pod["spec"].get("nodeName", "none") for pod in pods})
    message = f"pod {min(map(name_of, pods))} was lost with its node: {', '.join(nodes)}"
    return End(outcome=Outcome.DISRUPTED, exit_code=None, message=one_line(message, QUOTED_CHARACTERS))


def _overdue(job: Object) -> End:
    stage, seconds = job["metadata"]["labels"][STAGE_LABEL], job["spec"]["activeDeadlineSeconds"]
    message = f"stopped after spec.stages.{stage}.deadlineSeconds {seconds}: raise it or remove it"
    return End(outcome=Outcome.FAILED, exit_code=None, message=message)


def _by_rule(job: Object, pods: Sequence[Object], outcome: Outcome, name: str, message: str) -> End:
    for pod in pods:
        if name_of(pod) == name and (end := _end_of_pod(job, pod)) and end.outcome is outcome:
            return end
    return End(outcome=outcome, exit_code=None, message=one_line(message, QUOTED_CHARACTERS))  # the pod is gone


def _gravest(
    job: Object, pods: Sequence[Object], gravity: Sequence[Outcome], condition: Object, *, newest: bool = False
) -> End:
    """The gravest end of a pod that is no consequence of the Job's own; of equals the first to happen, or the newest.

    Where a shard used up its retries, its last failure is the newest. Where a worker fell, others fell after it.
    """
    since = moment((true_condition(job, "FailureTarget") or condition)["lastTransitionTime"])
    ends: dict[Outcome, End] = {}
    for pod in sorted(pods, key=lambda pod: (_finished(pod), name_of(pod)), reverse=newest):
        end = _end_of_pod(job, pod)
        if end and (end.outcome is Outcome.USER_FAULT or not _is_consequence(pod, since)):
            ends.setdefault(end.outcome, end)
    for outcome in gravity:
        if outcome in ends:
            return ends[outcome]
    message = one_line(f"{condition['reason']}: {condition['message']}", QUOTED_CHARACTERS)
    return End(outcome=Outcome.FAILED, exit_code=None, message=message)


def _is_consequence(pod: Object, failing_since: datetime) -> bool:
    """Whether the pod was stopped by the Job controller because the Job had failed: times are whole seconds."""
    asked = deletion_asked(pod)
    if asked is None or asked < failing_since:
        return False
    return asked > failing_since or true_condition(pod, "DisruptionTarget") is None


def _end_of_pod(job: Object, pod: Object) -> End | None:
    """What ended a pod, in the order of the rules of policy.py; None if nothing did, or it succeeded."""
    terminated = stage_state(pod, "terminated") or {}
    code: int | None = terminated.get("exitCode")
    if code is not None and code in USER_FAULT:
        return end_of(code, _message(pod), _log(pod))
    if phase_of(pod) != "Succeeded" and (disruption := true_condition(pod, "DisruptionTarget")):
        why = disruption.get("message") or disruption.get("reason", "")
        return _disrupted(code, f"pod {name_of(pod)} was disrupted: {why}")
    if code:
        return _end_of_container(job, pod, terminated)
    if not has_ended(pod) and "deletionTimestamp" in pod["metadata"]:
        return _disrupted(None, f"pod {name_of(pod)} was deleted, and its node does not answer")
    if code is None and phase_of(pod) == "Failed":
        why = pod["status"].get("message") or pod["status"].get("reason", "")
        return _disrupted(None, f"pod {name_of(pod)} was refused by its node: {why}")
    return None


def _end_of_container(job: Object, pod: Object, terminated: Object) -> End:
    end = end_of(terminated["exitCode"], _message(pod), _log(pod))
    if end.outcome is Outcome.FAILED and terminated.get("reason") == "OOMKilled":
        stage = job["metadata"]["labels"][STAGE_LABEL]
        message = f"killed for lack of memory: raise resources.limits.memory in spec.stages.{stage}.template"
        return replace(end, message=message)
    return end


def _disrupted(exit_code: int | None, message: str) -> End:
    return End(outcome=Outcome.DISRUPTED, exit_code=exit_code, message=one_line(message, QUOTED_CHARACTERS))


def _message(pod: Object) -> bytes:
    terminated = stage_state(pod, "terminated") or {}
    return str(terminated.get("message", "")).encode()


def _finished(pod: Object) -> str:
    terminated = stage_state(pod, "terminated") or {}
    return str(terminated.get("finishedAt", ""))


def _log(pod: Object) -> str:
    return f"kubectl logs {name_of(pod)}"
