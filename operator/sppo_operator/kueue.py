"""What Kueue's Workload says about the Job that it stands for (kueue.x-k8s.io v1beta1 and v1beta2)."""

from __future__ import annotations

from typing import Final

from sppo_operator.objects import Object, conditions_of, name_of, one_line, true_condition

QUOTED_CHARACTERS: Final = 300


def evictions(workload: Object | None) -> int:
    """How often the Job lost its place so far."""
    if workload is None:
        return 0
    status = workload.get("status", {})
    counted = sum(item["count"] for item in status.get("schedulingStats", {}).get("evictions", ()))
    # Versions without those statistics count only what was put back into the queue for pods that were not ready.
    requeued = status.get("requeueState", {}).get("count", 0)
    return int(counted or requeued or is_evicted(workload))


def is_evicted(workload: Object | None) -> bool:
    """Whether the Job has lost its place and not got a new one."""
    return workload is not None and true_condition(workload, "Evicted") is not None


def why_evicted(workload: Object | None) -> str:
    """Why the Job lost its place, whether or not it has got another one since."""
    condition = conditions_of(workload).get("Evicted") if workload else None
    why = condition.get("message", "").removeprefix("Previously: ") or condition.get("reason", "") if condition else ""
    return f"evicted by Kueue: {one_line(why, QUOTED_CHARACTERS)}" if why else "evicted by Kueue"


def why_waiting(workload: Object | None, queue: str) -> str:
    """Why a Job that is in a queue does not run, and what to do if waiting does not help."""
    if workload is None:
        return (
            f"queue {queue} has no Workload for it yet: if this lasts, check that Kueue is installed and manages Jobs "
            "in this namespace, that spec.queue.priorityClass exists, and that the operator may list "
            "workloads.kueue.x-k8s.io"
        )
    name, found = name_of(workload), conditions_of(workload)
    if finished := true_condition(workload, "Finished"):
        return f"Kueue could not start it ({_quoted(finished)}): delete the Job, and another one is made"
    if not workload["spec"].get("active", True):
        return f"its Workload {name} is deactivated ({_quoted(found.get('Evicted'))}): set its spec.active to true"
    if true_condition(workload, "QuotaReserved"):
        return f"queue {queue} {_why_not_started(workload)}"
    if "QuotaReserved" in found:
        why = found["QuotaReserved"]
        remedy = ": mend that, or change spec.queue.name" if why.get("reason") == "Inadmissible" else ""
        return f"queue {queue}: {_quoted(why)}{remedy}"
    return f"queue {queue} has not looked at it yet"


def _why_not_started(workload: Object) -> str:
    """Why a Job that counts against the quota does not run."""
    if evicted := true_condition(workload, "Evicted"):
        return f"took its place, and its pods are ending ({_quoted(evicted)})"
    pending = ", ".join(_pending_checks(workload))
    return f"has room for it, and admission checks are pending: {pending or 'Kueue names none'}"


def _pending_checks(workload: Object) -> list[str]:
    checks = workload.get("status", {}).get("admissionChecks", ())
    return [check["name"] for check in checks if check.get("state") != "Ready"]


def _quoted(condition: Object | None) -> str:
    if condition is None:
        return "no reason given"
    return one_line(condition.get("message") or condition.get("reason", ""), QUOTED_CHARACTERS)
