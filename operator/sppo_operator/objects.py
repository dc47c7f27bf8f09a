"""Reading Jobs, pods and Workloads as the API server sends them: a field that is not set is not there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sppo_operator.jobs import CONTAINER

Object = Mapping[str, Any]

FINALIZER = "batch.kubernetes.io/job-tracking"
"""What the Job controller keeps a pod by until it has counted it, and made another one if there has to be one."""

GPU = re.compile(r"[^/]+/(gpu(\.shared)?|mig-\d+g\.\d+gb([.-][a-z]+)*)|gpu\.intel\.com/(i915|xe)")
"""Such as nvidia.com/gpu, amd.com/gpu, nvidia.com/gpu.shared, nvidia.com/mig-1g.10gb.me, gpu.intel.com/i915."""
MOST_GPUS = 1_000_000
"""The CRD's bound."""

LOST_AFTER = timedelta(minutes=1)
"""After its grace period, a pod that is still not gone is on a node that answers no more."""


def name_of(item: Object) -> str:
    return str(item["metadata"]["name"])


def conditions_of(item: Object) -> dict[str, Object]:
    """The conditions by type, whatever their status."""
    return {condition["type"]: condition for condition in item.get("status", {}).get("conditions") or ()}


def true_condition(item: Object, *kinds: str) -> Object | None:
    """The first of these conditions that holds."""
    found = conditions_of(item)
    return next((found[kind] for kind in kinds if kind in found and found[kind]["status"] == "True"), None)


def moment(text: str) -> datetime:
    """A time as the API server writes it."""
    return datetime.fromisoformat(text)


def stage_state(pod: Object, state: str) -> Object | None:
    """What the pod's status says about the stage's container if it is in this state: waiting, running, terminated."""
    for container in pod.get("status", {}).get("containerStatuses") or ():
        if container["name"] == CONTAINER:
            found: Object | None = container.get("state", {}).get(state)
            return found
    return None


def phase_of(pod: Object) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def has_ended(pod: Object) -> bool:
    return phase_of(pod) in ("Succeeded", "Failed")


def lost_at(pod: Object) -> datetime | None:
    """When a pod that is being deleted counts as lost, unless it is gone before."""
    deadline = pod["metadata"].get("deletionTimestamp")  # the grace period is in it
    return moment(deadline) + LOST_AFTER if deadline else None


def is_kept(pod: Object) -> bool:
    """Whether the pod has ended and is deleted, and the Job controller is not done with it."""
    metadata = pod["metadata"]
    return has_ended(pod) and "deletionTimestamp" in metadata and FINALIZER in metadata.get("finalizers", ())


def deletion_asked(pod: Object) -> datetime | None:
    """When somebody asked for the deletion of the pod."""
    metadata = pod["metadata"]
    if "deletionTimestamp" not in metadata:
        return None
    return moment(metadata["deletionTimestamp"]) - timedelta(seconds=metadata.get("deletionGracePeriodSeconds", 0))


def gpus_of(job: Object) -> int:
    """GPUs that the pods of a Job request together, however their vendor calls them.

    All pods count as long as the Job is active: of shards, one that is done gives its GPUs back earlier.
    """
    [container] = (item for item in job["spec"]["template"]["spec"]["containers"] if item["name"] == CONTAINER)
    resources = container.get("resources", {})
    asked = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    each = sum(_count(amount) for name, amount in asked.items() if GPU.fullmatch(name))
    return int(min(each * job["spec"].get("parallelism", 1), MOST_GPUS))


def _count(amount: object) -> int:
    """A quantity of what is only asked for whole."""
    whole = re.fullmatch(r"([0-9]+)([kMGTPE]?)", str(amount))
    return int(whole[1]) * 1000 ** " kMGTPE".index(whole[2] or " ") if whole else 0


def one_line(text: str, characters: int) -> str:
    """Somebody else's message as a part of a sentence of ours."""
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= characters else f"{line[: characters - 2]} …"
