"""The operator on a simulated cluster: it looks at its run only when a watch or its own timer tells it to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar

import yaml
from simulated_api import Call, Object, merged
from simulated_cluster import HANGS, Behaviour, SimulatedCluster, has_ended
from sppo_operator.cache import Key, Kind
from sppo_operator.errors import ApiError
from sppo_operator.progress import ProgressBoard
from sppo_operator.reconcile import Reconciler
from sppo_operator.settings import Settings
from sppo_operator.validation import admit

T = TypeVar("T")
MANIFEST = yaml.safe_load("""
apiVersion: sppo.dev/v1alpha1
kind: SPPORun
metadata: {name: demo, namespace: lab}
spec:
  iterations: 2
  model: {source: models/base}
  prompts: {source: prompts.jsonl, perIteration: 10, heldOut: 8}
  preference: {kind: PairRM, pairRM: {model: {source: models/pairrm}}}
  objective: {beta: '0.05'}
  training: {learningRate: '0.000005'}
  stages: {generate: {workers: 2}, train: {workers: 2}}
  workspace: {claimName: models}
""")
KEY = Key("lab", "demo")
RETRY_SECONDS = 1.0
LONGEST = 400
PATIENCE_SECONDS = 600.0
"""The longest backoff between two attempts."""


FAILS, USER_FAULT = Behaviour(1, "boom"), Behaviour(65, '{"error": "prompts.source lacks a column: name it"}')


class Crash(BaseException):
    """The operator's process is gone."""


class SimulatedOperator:
    """One run on a cluster of its own, carried out by a real Reconciler; `steps` are small and the test's to take."""

    def __init__(self, *, image: str = "trainer:1", **spec: Any) -> None:
        self.cluster = SimulatedCluster()
        self.cluster.add("spporuns", admit(merged(MANIFEST, {"spec": spec})))
        self.image = image
        self.passes: list[list[Call]] = []
        self.errors: list[ApiError] = []
        """What made passes fail, each of which the queue has tried again."""
        self.restart()

    @property
    def run(self) -> Object:
        (run,) = self.cluster.all("spporuns")
        return run

    @property
    def status(self) -> Object:
        status: Object = self.run["status"]
        return status

    def restart(self) -> None:
        """A new process, which knows nothing but what the API server tells it."""
        settings = Settings(image=self.image, lease_namespace="sppo-system", identity="operator-1")
        self.cache = self.cluster.primed()
        self.board = ProgressBoard(self.cluster, self.cache, settings, lambda key: None)  # type: ignore[arg-type] # stands in for Api
        self.reconciler = Reconciler(
            self.cluster,  # type: ignore[arg-type] # stands in for Api
            self.cache,
            self.board,
            settings,
            clock=lambda: self.cluster.now,
        )
        self.due: datetime | None = self.cluster.now

    def look(self) -> None:
        """One pass, as a worker of the queue makes it."""
        first = len(self.cluster.calls)
        try:
            again = completed(self.reconciler.reconcile(KEY))
        except ApiError as error:
            self.errors.append(error)
            again = RETRY_SECONDS
        except Crash:
            self.restart()
            again = 0.0
        finally:
            self.passes.append(self.cluster.calls[first:])
        self.due = None if again is None else self.cluster.now + timedelta(seconds=again)

    def read_logs(self) -> None:
        """One round of the poller of progress."""
        asyncio.run(self.board.read_some())

    def step(self) -> bool:
        """Let the cluster move, hear of it, and look if that was news or the time has come; whether anything moved."""
        before = self.cluster.version
        self.cluster.tick()
        news = [self.cluster.deliver(self.cache, kind) for kind in Kind]
        looks = any(news) or (self.due is not None and self.due <= self.cluster.now)
        if looks:
            self.look()
            self.cluster.wait(1)
        return looks or self.cluster.version != before

    def steps(self, until: Callable[[], bool]) -> None:
        """Let it go on until then; time passes at once while nothing moves."""
        for _ in range(LONGEST):
            if until():
                return
            if not self.step():
                self._sleep()
        raise AssertionError(f"not in {LONGEST} steps: {self.status}")

    def finish(self, phase: str = "Succeeded") -> None:
        """Let it go on until the run has ended so, and nothing moves any more."""
        self.settle()
        assert self.phase == phase, self.status

    def settle(self) -> None:
        """Let it go on until the run has ended somehow, and nothing moves any more."""
        for _ in range(LONGEST):
            if not self.step():
                if self.phase in ("Succeeded", "Failed"):
                    return
                self._sleep()
        raise AssertionError(f"not in {LONGEST} steps: {self.status}")

    def _sleep(self) -> None:
        left = (self.due - self.cluster.now).total_seconds() if self.due else math.inf
        assert left <= PATIENCE_SECONDS, f"nobody would look again soon: {self.status}"
        self.cluster.wait(left)

    def rest(self, passes: int = 8) -> None:
        """Look again and again, with all news."""
        for _ in range(passes):
            self.cluster.tick()
            for kind in Kind:
                self.cluster.deliver(self.cache, kind)
            self.look()
            self.cluster.wait(1)

    def at_work(self, stage: str) -> bool:
        """Whether a pod of this stage runs."""
        pods = self.cluster.all("pods", f"sppo.dev/stage={stage}")
        return any(pod["status"]["phase"] == "Running" for pod in pods)

    @property
    def phase(self) -> str:
        return str(self.status.get("phase", ""))

    def edit(self, **fields: Any) -> None:
        """What a user changes in the run."""
        self.cluster.change(self.run, **fields)

    def jobs(self) -> list[str]:
        """The names of the Jobs that the operator made, in order and without the run's."""
        return [short(call) for call in self.cluster.calls if call.verb == "create" and call.at.plural == "jobs"]

    def live_jobs(self) -> list[Object]:
        return [job for job in self.cluster.all("jobs") if not has_ended(job)]

    def events(self) -> list[str]:
        return [f"{item['reason']} {item['message']}" for item in self.cluster.all("events")]

    def attempts(self) -> dict[str, str]:
        """Of every step that the status details, the outcomes of its newest attempts."""
        return {
            f"{stage['stage']} {iteration['number']}": " ".join(item["outcome"] for item in stage["attempts"])
            for iteration in self.status["iterations"]
            for stage in iteration.get("stages", ())
            if "attempts" in stage
        }

    def condition(self, kind: str) -> Object:
        found: dict[str, Object] = {item["type"]: item for item in self.status.get("conditions", ())}
        none: Object = {"status": "", "reason": "", "message": ""}
        return found.get(kind, none)


def short(call: Call) -> str:
    assert call.body
    return str(call.body["metadata"]["name"]).removeprefix("demo-")


def completed(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never has to wait, since its API server answers at once."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("it waits for something")


class Watchman:
    """Looks at every Job that is created: one of a step at a time, and none for what is done."""

    def __init__(self, operator: SimulatedOperator) -> None:
        self.operator = operator
        self.made: list[str] = []

    def __call__(self, call: Call, done: bool) -> None:
        if done or (call.verb, call.at.plural) != ("create", "jobs") or short(call) in self.made:
            return
        self.made.append(short(call))
        step = short(call).rpartition("-a")[0]
        uid = self.operator.run["metadata"]["uid"]
        own = [job for job in self.operator.live_jobs() if job["metadata"]["ownerReferences"][0]["uid"] == uid]
        same_step = [job for job in own if f"-{step}-a" in job["metadata"]["name"]]
        assert not same_step, f"{short(call)} begins beside {same_step[0]['metadata']['name']}"
        at_work = [
            pod["metadata"]["name"]
            for pod in self.operator.cluster.all("pods")
            if f"-{step}-a" in pod["metadata"]["name"] and pod["status"]["phase"] == "Running"
        ]
        assert not at_work, f"{short(call)} begins while {at_work} run"
        recorded = self.operator.attempts() if "iterations" in self.operator.status else {}
        iteration, stage = step.removeprefix("i").split("-")
        assert not recorded.get(f"{stage} {iteration}", "").endswith("Succeeded"), f"{step} is done again"


def held_at(stage: str, **spec: Any) -> SimulatedOperator:
    """A run whose stage `stage` of iteration 1 runs until it is stopped."""
    operator = SimulatedOperator(iterations=1, evaluation={"parallel": False}, **spec)
    operator.cluster.disturb = Watchman(operator)
    operator.cluster.script[f"{stage} 1"] = [HANGS] * 2
    operator.steps(lambda: operator.at_work(stage))
    return operator
