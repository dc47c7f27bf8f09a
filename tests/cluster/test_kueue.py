"""Runs in a queue of a real Kueue that has room for one Job: they wait, take turns, are preempted, and say so.

Every Job asks for all of the quota. A stage that is told to hold keeps its place until the test lets it go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from audit import AuditLog
from lab import Lab, Object, condition, digests, stage
from namespaces import Namespace
from operators import NAME, NAMESPACE
from standin_notes import Notes, eventually
from standin_runs import standin
from testbed import Node

SECONDS = 180.0
A_SECOND = timedelta(seconds=1)
"""Kubernetes' times are whole seconds."""
QUOTA = 100
"""In thousandths of a core."""
QUEUES = f"""
apiVersion: kueue.x-k8s.io/v1beta1
kind: ResourceFlavor
metadata: {{name: NAMESPACE}}
---
apiVersion: kueue.x-k8s.io/v1beta1
kind: ClusterQueue
metadata: {{name: NAMESPACE}}
spec:
  namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: NAMESPACE}}}}
  preemption: {{withinClusterQueue: LowerPriority}}
  resourceGroups:
  - coveredResources: [cpu]
    flavors:
    - name: NAMESPACE
      resources: [{{name: cpu, nominalQuota: {QUOTA}m}}]
---
apiVersion: kueue.x-k8s.io/v1beta1
kind: LocalQueue
metadata: {{name: team, namespace: NAMESPACE}}
spec: {{clusterQueue: NAMESPACE}}
---
apiVersion: kueue.x-k8s.io/v1beta1
kind: WorkloadPriorityClass
metadata: {{name: NAMESPACE-urgent}}
value: 1000
"""


@dataclass(frozen=True)
class Queue:
    """The LocalQueue `team` of a namespace."""

    lab: Lab
    space: Namespace

    def apply(self, name: str, *, faults: str = "", priority: str = "", workers: int = 1, **spec: Any) -> Notes:
        """A run whose scoring is divided among `workers`; it is in the queue unless `spec` says otherwise."""
        stages = {of: {"template": _template(faults, 1)} for of in ("prepare", "generate", "train", "evaluate")}
        stages["score"] = {"workers": workers, "template": _template(faults, workers)}
        queue = {"name": "team"} | ({"priorityClass": f"{self.space.name}-{priority}"} if priority else {})
        serial = {
            "queue": queue,
            "stages": stages,
            "evaluation": {"parallel": False},
            "generation": {"chunkPrompts": 2},
        }
        self.space.apply(standin(name, **serial | spec))
        return Notes(self.space.folder(name))

    def until_queued(self, name: str, why: str) -> Object:
        """The run when its condition Queued gives this reason."""
        return self.until(name, lambda run: is_queued(run) and why in condition(run, "Queued")["message"])

    def until(self, name: str, question: Any) -> Object:
        return self.lab.until_run(self.space.name, name, question, seconds=SECONDS)

    def until_succeeded(self, name: str) -> Object:
        run = self.lab.until_over(self.space.name, name, seconds=SECONDS)
        assert condition(run, "Succeeded")["status"] == "True"
        return run

    def events(self, run: str) -> list[str]:
        """The reasons of the Events about a run, in order."""
        found = [item for item in self.lab.list("events", self.space.name) if item["involvedObject"]["name"] == run]
        return [item["reason"] for item in sorted(found, key=lambda item: int(item["metadata"]["resourceVersion"]))]

    def kubectl_get(self, run: str) -> str:
        return self.lab.kubectl("get", "spporun", run, "-n", self.space.name)

    def activate(self, run: str, active: bool) -> None:
        """What an administrator does to keep a Job from being admitted."""
        workloads = self.lab.list("workloads", self.space.name)
        (name,) = (item["metadata"]["name"] for item in workloads if f"job-{run}-" in item["metadata"]["name"])
        self.lab.patch("workloads", self.space.name, name, {"spec": {"active": active}})


@pytest.fixture
def queue(lab: Lab, kueue: None, namespace: Namespace) -> Iterator[Queue]:
    manifests = QUEUES.replace("NAMESPACE", namespace.name)
    lab.kubectl("apply", "-f", "-", stdin=manifests)
    yield Queue(lab, namespace)
    # Kueue lets a queue go when the last Workload is gone, with the namespace.
    lab.kubectl("delete", "--wait=false", "-f", "-", stdin=manifests)


def _template(faults: str, workers: int) -> Object:
    return {
        "env": [{"name": "STANDIN_FAIL", "value": faults}],
        "resources": {"requests": {"cpu": f"{QUOTA // workers}m"}},
    }


def is_queued(run: Mapping[str, Any]) -> bool:
    return condition(run, "Queued")["status"] == "True"


def is_over(job: Mapping[str, Any]) -> bool:
    return any(item["type"] in ("Complete", "Failed") for item in job["status"].get("conditions", ()))


def attempts(run: Mapping[str, Any], iteration: int, name: str) -> list[tuple[str, int]]:
    """The outcome and the evictions of every attempt."""
    return [(item["outcome"], item.get("evictions", 0)) for item in stage(run, iteration, name)["attempts"]]


class Turns:
    """Asked at every change of a Job; notes which were admitted, and that it was one at a time."""

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.admitted: list[str] = []

    def __call__(self, jobs: Mapping[str, Object]) -> bool:
        at_work = [name for name, job in jobs.items() if not job["spec"]["suspend"] and not is_over(job)]
        assert len(at_work) <= 1, f"the quota is one Job, and these run: {at_work}"
        self.admitted += [name for name in at_work if name not in self.admitted]
        return len(self.admitted) == self.turns

    def runs(self) -> list[str]:
        return [name.split("-")[0] for name in self.admitted]


def test_two_runs_take_turns_and_the_one_that_waits_says_so(lab: Lab, queue: Queue) -> None:
    first = queue.apply("first", faults="prepare:0:hold")
    first.until_held("prepare", SECONDS)
    queue.apply("second")
    since = condition(queue.until("second", is_queued), "Queued")["lastTransitionTime"]
    waiting = queue.until_queued("second", "prepare waits: queue team: couldn't assign flavors")
    assert condition(waiting, "Queued")["lastTransitionTime"] == since >= waiting["metadata"]["creationTimestamp"]
    assert condition(waiting, "Progressing")["reason"] == waiting["status"]["phase"] == "Queued"
    assert stage(waiting, 0, "prepare")["state"] == "Queued"
    assert "Queued" in queue.kubectl_get("second")

    turns = Turns(6)
    waits_since = datetime.fromisoformat(since)
    eventually(lambda: datetime.now(UTC) > waits_since + 3 * A_SECOND, 10)  # so long that it would show if it counted
    released = datetime.now(UTC)
    first.release()
    lab.until("jobs", queue.space.name, turns, seconds=SECONDS)
    assert turns.runs() == ["first", "second"] * 3
    told = [reason for reason in queue.events("second") if reason in ("Queued", "Admitted")]
    assert told[:4] == ["Queued", "Admitted"] * 2

    (attempt,) = stage(queue.until_succeeded("second"), 0, "prepare")["attempts"]
    created, ended = (datetime.fromisoformat(attempt[name]) for name in ("startTime", "finishTime"))
    at_work = timedelta(seconds=attempt["activeSeconds"])
    assert created < released - A_SECOND
    assert at_work < ended - released + A_SECOND, "the time in the queue counts as work"


def test_a_preempted_run_ends_in_the_same_artifacts(lab: Lab, queue: Queue) -> None:
    queue.apply("undisturbed", queue=None)
    hang = "score:1:hang:worker=0:after=1 train:1:hang:after=1"
    run = queue.apply("patient", faults=hang, workers=2)
    for name in ("score", "train"):
        run.until_held(f"{name} 1", SECONDS)
        urgent = queue.apply(f"urgent-{name}", priority="urgent", faults="prepare:0:hold")
        urgent.until_held("prepare", SECONDS)
        waiting = queue.until("patient", lambda run, name=name: stage(run, 1, name).get("state") == "Queued")
        assert (waiting["status"]["phase"], is_queued(waiting)) == ("Queued", True)
        lab.delete("spporuns", queue.space.name, f"urgent-{name}")

    ended = queue.until_succeeded("patient")
    assert attempts(ended, 1, "score") == [("Succeeded", 1)]
    # The Job of a training fails when its pod is stopped, unless the pod is gone before the Job controller looks.
    assert attempts(ended, 1, "train") in ([("Eviction", 1), ("Succeeded", 0)], [("Succeeded", 1)])
    assert ended["status"]["failures"] == {"eviction": 2}
    assert digests(ended) == digests(queue.until_succeeded("undisturbed"))
    assert (run.done_twice(), run.crowded()) == ([], [])


def test_suspended_in_a_queue_a_run_leaves_it_and_comes_back(lab: Lab, node: Node, queue: Queue) -> None:
    log = AuditLog(node.audit_log)
    run = queue.apply("first", faults="prepare:0:hold")
    run.until_held("prepare", SECONDS)
    queue.apply("second", faults="prepare:0:hold")
    queue.until("second", is_queued)
    queue.space.patch("first", {"suspend": True})
    lab.until("pods", queue.space.name, lambda pods: not any("first" in name for name in pods), seconds=SECONDS)
    queue.until("second", lambda run: run["status"]["phase"] == "Preparing")
    suspended = queue.until("first", lambda run: condition(run, "Suspended")["status"] == "True")
    assert lab.list("jobs", queue.space.name, "sppo.dev/run=first") == []
    assert not is_queued(suspended)

    queue.space.patch("first", {"suspend": False})
    queue.until_queued("first", "couldn't assign flavors")
    lab.delete("spporuns", queue.space.name, "second")
    run.release()
    resumed = queue.until("first", lambda run: stage(run, 0, "prepare")["state"] == "Succeeded")
    assert attempts(resumed, 0, "prepare") == [("Suspended", 0), ("Succeeded", 0)]
    assert "failures" not in resumed["status"]
    operator = f"system:serviceaccount:{NAMESPACE}:{NAME}"
    mine = {call.verb for call in log.calls(queue.space.name) if (call.user, call.resource) == (operator, "jobs")}
    assert mine == {"create", "delete"}  # no patch: Kueue alone starts a Job of its queue


def test_what_keeps_a_run_in_its_queue_is_explained_and_can_be_mended(lab: Lab, queue: Queue) -> None:
    queue.apply("holder", faults="prepare:0:hold").until_held("prepare", SECONDS)
    queue.apply("astray", queue={"name": "nowhere"})
    queue.apply("unranked", priority="unknown")
    queue.apply("idle")
    late = queue.apply("late", queue=None, faults="prepare:0:hold")
    queue.until_queued("astray", "LocalQueue nowhere doesn't exist: mend that, or change spec.queue.name")
    queue.until_queued("unranked", "no Workload for it yet: if this lasts, check that")
    queue.until_queued("idle", "couldn't assign flavors")
    queue.activate("idle", False)
    queue.until_queued("idle", "is deactivated (The workload is deactivated): set its spec.active to true")

    queue.activate("idle", True)
    queue.space.patch("unranked", {"queue": {"priorityClass": None}})
    queue.until_queued("unranked", "queue team: couldn't assign flavors")
    queue.space.patch("astray", {"queue": None})
    queue.until("astray", prepared)
    late.until_held("prepare", SECONDS)
    queue.space.patch("late", {"queue": {"name": "team"}})
    late.release()
    queue.until_queued("late", "evaluate 0 waits: queue team")
    lab.delete("spporuns", queue.space.name, "holder")
    for name in ("idle", "unranked"):
        queue.until(name, prepared)


def prepared(run: Mapping[str, Any]) -> bool:
    return bool(stage(run, 0, "prepare").get("state") == "Succeeded")
