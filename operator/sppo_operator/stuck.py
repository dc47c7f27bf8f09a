"""Why a pod does not start, in one sentence with a remedy; said after a minute, since most waits end by themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sppo_operator.jobs import STAGE_LABEL
from sppo_operator.objects import (
    Object,
    conditions_of,
    moment,
    name_of,
    one_line,
    phase_of,
    stage_state,
    true_condition,
)

STUCK_SECONDS: Final = 60.0
QUOTED_CHARACTERS: Final = 240
IMAGE: Final = "correct spec.image, or name the registry's Secret in {template}.imagePullSecrets"
CONTAINERS: Final = {
    "ErrImagePull": IMAGE,
    "ImagePullBackOff": IMAGE,
    "ImageInspectError": IMAGE,
    "InvalidImageName": "correct spec.image",
    "ErrImageNeverPull": "load the image on the node",
    "CreateContainerConfigError": "create what is missing, or correct the run's references to Secrets and {template}",
    "CreateContainerError": "{describe} shows more",
    "RunContainerError": "{describe} shows more",
}
"""The reasons for which a container waits until somebody helps, and the remedies."""
SCHEDULER: Final = (
    (r"persistentvolumeclaim .* not found", "create the claim"),
    (r"unbound immediate PersistentVolumeClaims", "the claim has no volume: kubectl describe pvc shows why"),
    (r"Insufficient \S+", "lower {template}.resources, or wait for or add nodes that have them"),
    (r"untolerated taint", "add {template}.tolerations, or nodes without the taint"),
    (r"didn't match .*(affinity|selector)", "correct {template}.nodeSelector and affinity, or label a node"),
)
"""What the scheduler says, and the remedies."""
PREEMPTION: Final = re.compile(r"\s*(no new claims to deallocate, )?preemption: .*", re.DOTALL)
"""The end of its message: why it did not help to take the place of other pods."""


class Trouble(NamedTuple):
    since: datetime
    sentence: str


def stuck(job: Object, pods: Sequence[Object], now: datetime) -> tuple[str, float | None]:
    """Why the oldest of the Job's troubles keeps a pod from starting, empty if there is none of STUCK_SECONDS.

    Then the second value has the seconds until there may be one; None if only news can bring one about.
    """
    troubles = sorted(_troubles(job, pods))
    if not troubles:
        return "", None
    left = (troubles[0].since + timedelta(seconds=STUCK_SECONDS) - now).total_seconds()
    return (troubles[0].sentence, None) if left <= 0 else ("", left)


def _troubles(job: Object, pods: Sequence[Object]) -> Iterator[Trouble]:
    if not pods and not job.get("status", {}).get("active"):
        name = name_of(job)
        since = job.get("status", {}).get("startTime") or job["metadata"]["creationTimestamp"]
        why = "a quota, Pod Security or a missing service account may forbid it"
        yield Trouble(moment(since), f"Job {name} gets no pods ({why}): kubectl describe job {name} shows why")
    stage = job["metadata"]["labels"][STAGE_LABEL]
    for pod in pods:
        if phase_of(pod) == "Pending" and "deletionTimestamp" not in pod["metadata"]:
            yield from troubles_of(pod, stage)


def troubles_of(pod: Object, stage: str) -> Iterator[Trouble]:
    """What keeps a pod that is Pending from starting; `stage` has the template that it was made from."""
    found, created = conditions_of(pod), pod["metadata"]["creationTimestamp"]
    scheduled = true_condition(pod, "PodScheduled")
    if scheduled is None:
        condition = found.get("PodScheduled", {})
        since = moment(condition.get("lastTransitionTime") or created)
        yield Trouble(since, _unscheduled(pod, condition.get("message", ""), stage))
        return
    since = moment(scheduled.get("lastTransitionTime") or created)
    waiting = stage_state(pod, "waiting") or {}
    if (reason := waiting.get("reason", "")) in CONTAINERS:
        says = f"{reason}: {one_line(waiting.get('message', ''), QUOTED_CHARACTERS)}".rstrip(": ")
        yield Trouble(since, f"pod {name_of(pod)} cannot start ({says}): {_remedy(CONTAINERS[reason], pod, stage)}")
    elif found.get("PodReadyToStartContainers", {}).get("status") == "False":  # True while the image is pulled
        yield Trouble(
            since,
            f"pod {name_of(pod)} waits for its volumes or its network: kubectl describe pod {name_of(pod)} shows why",
        )
    elif not pod.get("status", {}).get("containerStatuses"):
        node = pod["spec"].get("nodeName", "its node")
        yield Trouble(since, f"pod {name_of(pod)} was not taken up by {node}: kubectl describe node {node} shows why")


def _unscheduled(pod: Object, message: str, stage: str) -> str:
    if not message:
        return f"pod {name_of(pod)} was not seen by a scheduler: check that the cluster's scheduler runs"
    says = PREEMPTION.sub("", message)
    remedy = next((remedy for pattern, remedy in SCHEDULER if re.search(pattern, says)), "{describe} shows more")
    return f"pod {name_of(pod)} finds no node ({one_line(says, QUOTED_CHARACTERS)}): {_remedy(remedy, pod, stage)}"


def _remedy(remedy: str, pod: Object, stage: str) -> str:
    return remedy.format(template=f"spec.stages.{stage}.template", describe=f"kubectl describe pod {name_of(pod)}")
