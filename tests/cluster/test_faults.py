"""Every fault in every stage: the run ends in the artifacts of the undisturbed one, and no work is done twice.

For each fault, one run per stage is brought to where that stage is in the middle of its work, and holds there. The fault
comes over all of them at once; then they go on to their end. Nothing depends on timing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from audit import AuditLog, live_at_once
from lab import Lab, condition, digests, stage
from namespaces import Namespace
from operators import Operator
from standin_notes import Notes
from standin_runs import standin
from testbed import Node

SIZE = {"generation": {"chunkPrompts": 2}}
"""Five chunks of prompts."""
ROUNDS = 4
"""How often one of the two replicas is killed, by turns."""


@dataclass(frozen=True)
class Held:
    """A run that holds in the middle of one stage."""

    name: str
    iteration: int
    stage: str
    workers: int = 1

    @property
    def step(self) -> str:
        return self.stage if self.stage == "prepare" else f"{self.stage} {self.iteration}"

    @property
    def job(self) -> str:
        return f"{self.name}-i{self.iteration}-{self.stage}-a1"

    def manifest(self) -> dict[str, Any]:
        here = f"{self.stage}:{self.iteration}:hold"
        fail = [f"{here}:worker={worker}:after={after}" for worker, after in enumerate(self._done_before())]
        template = {"env": [{"name": "STANDIN_FAIL", "value": " ".join(fail)}]}
        workers = {"workers": self.workers} if self.workers > 1 else {}
        return standin(self.name, **SIZE, stages={self.stage: {"template": template, **workers}})

    def _done_before(self) -> list[int]:
        """How many chunks each worker has done when it holds; a training's are all the first worker's."""
        return [1, *[0 if self.stage == "train" else 1] * (self.workers - 1)]


RUNS = [
    Held("prepare", 0, "prepare"),
    Held("generate", 1, "generate", workers=3),
    Held("score", 1, "score"),
    Held("train", 1, "train"),
    Held("train-2", 1, "train", workers=2),
    Held("evaluate", 1, "evaluate"),
]


@dataclass(frozen=True)
class Scene:
    """Runs that hold, and whatever a fault can hit."""

    lab: Lab
    operator: Operator
    node: Node
    space: Namespace
    log: AuditLog

    def release(self) -> None:
        for run in RUNS:
            self.notes(run).release()

    def notes(self, run: Held) -> Notes:
        return Notes(self.space.folder(run.name))

    def pods(self, run: Held) -> list[str]:
        selector = f"batch.kubernetes.io/job-name={run.job}"
        return sorted(pod["metadata"]["name"] for pod in self.lab.list("pods", self.space.name, selector))

    def until_jobs_end(self) -> None:
        """All Jobs that held are Complete."""
        names = {run.job for run in RUNS}
        self.lab.until(
            "jobs", self.space.name, lambda jobs: all(is_complete(jobs[name]) for name in names), seconds=120
        )


def is_complete(job: dict[str, Any]) -> bool:
    return any(item["type"] == "Complete" and item["status"] == "True" for item in job["status"].get("conditions", ()))


def operator_killed(scene: Scene) -> None:
    for pod in scene.operator.pods():
        scene.operator.kill(pod)


def operator_away(scene: Scene) -> None:
    scene.operator.scale(0)
    scene.release()
    scene.until_jobs_end()
    scene.operator.scale(2)


def replicas_killed_by_turns(scene: Scene) -> None:
    pods = scene.operator.pods()
    scene.release()
    for number in range(ROUNDS):
        pod = pods[number % len(pods)]
        restarts = scene.operator.restarts(pod)
        scene.operator.kill(pod)
        scene.operator.until_restarted(pod, restarts + 1)


def pod_deleted(scene: Scene) -> None:
    victims = {scene.pods(run)[-1] for run in RUNS}
    for pod in victims:
        scene.lab.delete("pods", scene.space.name, pod)
    # One that is let go on while it ends may still succeed; its result is lost, and the Job counts as vanished.
    scene.lab.until("pods", scene.space.name, victims.isdisjoint, seconds=120)


def job_deleted(scene: Scene) -> None:
    for run in RUNS:
        scene.lab.delete("jobs", scene.space.name, run.job)


def finished_job_removed(scene: Scene) -> None:
    scene.operator.scale(0)
    scene.release()
    scene.until_jobs_end()
    job_deleted(scene)
    scene.operator.scale(2)


def node_drained(scene: Scene) -> None:
    try:
        scene.lab.kubectl(
            *("drain", scene.node.name, "--pod-selector=sppo.dev/run", "--ignore-daemonsets", "--delete-emptydir-data"),
            *("--force", "--timeout=120s"),
        )
    finally:
        scene.lab.kubectl("uncordon", scene.node.name)


def api_server_restarted(scene: Scene) -> None:
    scene.node.restart("apiserver")


@dataclass(frozen=True)
class Fault:
    strike: Callable[[Scene], None]
    attempts: tuple[str, ...] = ("Succeeded",)
    """What becomes of the attempts of the stage that held."""
    training: tuple[str, ...] = ()
    """The same for a training, which is no set of shards, if that differs."""

    def outcomes(self, run: Held) -> list[str]:
        return list(self.training if self.training and run.stage == "train" else self.attempts)


INTERRUPTED = ("Disruption", "Succeeded")
VANISHED = ("Vanished", "Succeeded")
FAULTS = {
    "operator killed": Fault(operator_killed),
    "operator away for a while": Fault(operator_away),
    "replicas killed by turns": Fault(replicas_killed_by_turns),
    "pod deleted": Fault(pod_deleted, training=INTERRUPTED),
    "Job deleted": Fault(job_deleted, VANISHED),
    "finished Job removed unseen": Fault(finished_job_removed, VANISHED),
    "node drained": Fault(node_drained, training=INTERRUPTED),
    "API server restarted": Fault(api_server_restarted),
}


@pytest.fixture(scope="module")
def undisturbed(lab: Lab, operator: Operator) -> Iterator[dict[str, str]]:
    """The content digests that a run of one worker ends in, by stage."""
    space = Namespace.create(lab, "undisturbed")
    space.apply(standin("run", **SIZE))
    run = lab.until_over(space.name, "run", seconds=180)
    found = digests(run)
    assert condition(run, "Succeeded")["status"] == "True" and all(found.values()) and len(set(found.values())) == 6
    yield found
    space.remove()


@pytest.fixture
def scene(lab: Lab, operator: Operator, node: Node, namespace: Namespace) -> Iterator[Scene]:
    scene = Scene(lab, operator, node, namespace, AuditLog(node.audit_log))
    for run in RUNS:
        namespace.apply(run.manifest())
    for run in RUNS:
        scene.notes(run).until_held(run.step, seconds=240)
    yield scene
    operator.renew()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_changes_nothing(scene: Scene, fault: Fault, undisturbed: dict[str, str]) -> None:
    fault.strike(scene)
    scene.release()
    for held in RUNS:
        run = scene.lab.until_over(scene.space.name, held.name, seconds=240)
        notes = scene.notes(held)
        attempts = [attempt["outcome"] for attempt in stage(run, held.iteration, held.stage)["attempts"]]
        assert (held.name, condition(run, "Succeeded")["status"]) == (held.name, "True")
        assert (held.name, digests(run)) == (held.name, undisturbed)
        assert (held.name, attempts) == (held.name, fault.outcomes(held))
        assert (held.name, notes.done_twice(), notes.crowded()) == (held.name, [], [])
    assert live_at_once(scene.log.calls(scene.space.name)) == []
