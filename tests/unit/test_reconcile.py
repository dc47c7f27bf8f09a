"""Whole runs on a simulated cluster: the order of things, crashes between any two calls, and what users do meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated_api import Call, Object
from simulated_cluster import DISRUPTED, HANGS, LOST, Behaviour
from simulated_operator import KEY, Crash, SimulatedOperator, completed, short
from sppo_operator.cache import Kind
from sppo_operator.decide import schedule
from sppo_operator.errors import ApiError, ConflictError, ForbiddenError, RefusedError, UnavailableError

UNDISTURBED = """
i0-prepare-a1 i0-evaluate-a1 i1-generate-a1 i1-score-a1 i1-train-a1
i1-evaluate-a1 i2-generate-a1 i2-score-a1 i2-train-a1 i2-evaluate-a1
""".split()
FAILS, USER_FAULT = Behaviour(1, "boom"), Behaviour(65, '{"error": "prompts.source lacks a column: name it"}')


def writes(calls: list[Call]) -> list[str]:
    return [str(call) for call in calls if call.verb not in ("get", "list", "try") and call.at.plural != "events"]


def status_writes(calls: list[Call]) -> int:
    return sum(call.at.part == "status" for call in calls)


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
        same_step = [job for job in self.operator.live_jobs() if f"-{step}-a" in job["metadata"]["name"]]
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


# The undisturbed run


def test_an_undisturbed_run() -> None:
    operator = SimulatedOperator()
    operator.finish()
    assert operator.jobs() == UNDISTURBED
    assert set(operator.attempts().values()) == {"Succeeded"}
    assert operator.condition("Succeeded")["status"] == "True"
    policies = {item["number"]: item.get("policy") for item in operator.status["iterations"]}
    assert policies == {0: None, 1: "pvc://models/lab/demo/i1/train/model", 2: "pvc://models/lab/demo/i2/train/model"}
    assert max(map(status_writes, operator.passes)) == 1


def test_a_pass_without_news_writes_nothing() -> None:
    operator = SimulatedOperator()
    operator.steps(lambda: len(operator.jobs()) == 3)
    for _ in range(3):
        operator.look()
        assert operator.passes[-1] == []
    operator.finish()
    operator.restart()
    operator.look()
    assert writes(operator.passes[-1]) == []


def test_events_come_once_and_tell_the_story() -> None:
    operator = SimulatedOperator(iterations=1, evaluation={"parallel": False})
    operator.finish()
    stages = ["i0-prepare", "i0-evaluate", "i1-generate", "i1-score", "i1-train", "i1-evaluate"]
    told = [
        text
        for stage in stages
        for text in (f"StageStarted Started Job demo-{stage}-a1", f"StageSucceeded Job demo-{stage}-a1 ended as Succeeded")
    ]
    # A pass tells the end of one stage and the start of the next in the order of the schedule.
    assert operator.events() == [*told, "RunSucceeded All iterations are trained."]


# Crashes


def calls_of(script: dict[str, list[Behaviour]], **spec: Any) -> tuple[SimulatedOperator, int]:
    operator = SimulatedOperator(**spec)
    operator.cluster.script.update({step: list(behaviours) for step, behaviours in script.items()})
    operator.finish()
    return operator, len(operator.cluster.calls)


def crash_at(number: int, when_done: bool) -> Callable[[Call, bool], None]:
    seen = Counter[bool]()

    def disturb(call: Call, done: bool) -> None:
        seen[done] += 1
        if done == when_done and seen[done] == number + 1:
            raise Crash

    return disturb


SCRIPTS: dict[str, dict[str, list[Behaviour]]] = {
    "undisturbed": {},
    "failures": {
        "evaluate 0": [FAILS],
        "generate 1": [FAILS, DISRUPTED],
        "train 1": [FAILS, DISRUPTED, DISRUPTED],
    },
}


@pytest.mark.parametrize("when_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_crash_at_any_call_changes_nothing(script: dict[str, list[Behaviour]], when_done: bool) -> None:
    spec = {"iterations": 1}
    expected, calls = calls_of(script, **spec)
    for number in range(calls):
        operator = SimulatedOperator(**spec)
        operator.cluster.script.update({step: list(behaviours) for step, behaviours in script.items()})
        watchman, crash = Watchman(operator), crash_at(number, when_done)

        def disturb(call: Call, done: bool, watchman: Watchman = watchman, crash: Any = crash) -> None:
            watchman(call, done)
            crash(call, done)

        operator.cluster.disturb = disturb
        operator.finish()
        at = f"after a crash at {expected.cluster.calls[number]}"
        assert watchman.made == expected.jobs(), at
        assert operator.attempts() == expected.attempts(), at
        assert operator.status.get("failures") == expected.status.get("failures"), at
        assert operator.cluster.work == expected.cluster.work, at
        assert max(Counter(operator.events()).values()) == 1, at


# What users do


def running(operator: SimulatedOperator, stage: str) -> Callable[[], bool]:
    """Whether a pod of this stage is at work."""
    selector = f"sppo.dev/stage={stage}"
    return lambda: any(pod["status"]["phase"] == "Running" for pod in operator.cluster.all("pods", selector))


def at_work(stage: str, **spec: Any) -> SimulatedOperator:
    """A run whose stage `stage` of iteration 1 runs until it is stopped."""
    operator = SimulatedOperator(iterations=1, evaluation={"parallel": False}, **spec)
    operator.cluster.disturb = Watchman(operator)
    operator.cluster.script[f"{stage} 1"] = [HANGS] * 2
    operator.steps(running(operator, stage))
    return operator


def rest(operator: SimulatedOperator, steps: int = 8) -> None:
    for _ in range(steps):
        operator.cluster.tick()
        for kind in Kind:
            operator.cluster.deliver(operator.cache, kind)
        operator.look()
        operator.cluster.wait(1)


def test_suspend_stops_the_pods_and_resume_goes_on_with_the_same_job() -> None:
    operator = at_work("generate")
    operator.edit(spec={"suspend": True})
    rest(operator)
    assert not any(running(operator, stage)() for stage in ("generate", "evaluate"))
    assert operator.phase == "Suspended"
    assert operator.condition("Suspended")["status"] == "True"
    assert operator.condition("Progressing")["reason"] == "Suspended"
    operator.edit(spec={"suspend": False})
    operator.finish()
    assert operator.attempts()["generate 1"] == "Succeeded"
    assert [text.split()[0] for text in operator.events() if "Suspend" in text or "Resume" in text] == ["Suspended", "Resumed"]


@pytest.mark.parametrize(("seen", "outcomes"), [(True, "Suspended Succeeded"), (False, "Succeeded")])
def test_a_suspended_training_ends_as_suspended_if_its_job_fails_of_it(seen: bool, outcomes: str) -> None:
    operator = at_work("train")
    operator.cluster.sees_stopped_pods = seen
    operator.edit(spec={"suspend": True})
    rest(operator)
    assert operator.phase == "Suspended"
    operator.edit(spec={"suspend": False})
    operator.finish()
    assert operator.attempts()["train 1"] == outcomes
    assert "failures" not in operator.status


def test_suspend_in_a_queue_deletes_the_job_and_resume_is_the_next_attempt() -> None:
    operator = at_work("generate", queue={"name": "team"})
    operator.edit(spec={"suspend": True})
    rest(operator)
    assert operator.live_jobs() == []
    assert operator.phase == "Suspended"
    operator.edit(spec={"suspend": False})
    operator.finish()
    assert operator.attempts()["generate 1"] == "Suspended Succeeded"
    assert "failures" not in operator.status


def test_a_job_that_waits_in_a_queue_is_shown_and_never_unsuspended() -> None:
    operator = SimulatedOperator(iterations=1, queue={"name": "team"})
    operator.cluster.admitting = False
    rest(operator)
    assert (operator.phase, operator.condition("Progressing")["reason"]) == ("Queued", "Queued")
    assert operator.condition("Queued")["message"] == "prepare waits: queue team: so it was decided"
    assert [call.verb for call in operator.cluster.calls].count("patch") == 0
    operator.cluster.admitting = True
    operator.finish()
    assert [text.split()[0] for text in operator.events()][:3] == ["StageStarted", "Queued", "Admitted"]


def test_an_evicted_training_is_another_attempt_and_counts_as_an_eviction() -> None:
    operator = at_work("train", queue={"name": "team"})
    operator.cluster.evict(operator.live_jobs()[0])
    operator.cluster.admitting = False
    rest(operator)
    operator.cluster.admitting = True
    operator.finish()
    assert operator.attempts()["train 1"] == "Eviction Succeeded"
    assert operator.status["failures"] == {"eviction": 1}


def test_a_deleted_run_is_left_to_the_garbage_collector() -> None:
    operator = at_work("generate")
    operator.cluster.remove(operator.cluster.at(operator.run), propagation="Foreground")
    calls = len(operator.cluster.calls)
    operator.look() if operator.cluster.deliver(operator.cache, Kind.RUN) else None
    for _ in range(8):
        operator.cluster.tick()
    assert operator.cluster.all("jobs") == operator.cluster.all("pods") == operator.cluster.all("spporuns") == []
    assert operator.cluster.calls[calls:] == []


def test_finished_jobs_go_after_their_retention_and_nothing_is_forgotten() -> None:
    operator = SimulatedOperator(iterations=1, retention={"finishedJobsSeconds": 5})
    operator.cluster.disturb = Watchman(operator)
    operator.finish()
    before = operator.status
    operator.steps(lambda: operator.cluster.all("jobs") == [])
    rest(operator)
    assert operator.status == before
    assert operator.attempts()["prepare 0"] == "Succeeded"


def test_more_iterations_turn_succeeded_back() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.finish()
    operator.edit(spec={"iterations": 2})
    operator.steps(lambda: operator.condition("Succeeded")["status"] == "Unknown")
    assert "finishTime" not in operator.status
    operator.finish()
    assert Counter(operator.jobs()) == Counter(UNDISTURBED)


def test_a_run_keeps_its_image_when_the_operator_is_upgraded() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.steps(lambda: operator.phase == "Generating")
    operator.image = "trainer:2"
    operator.restart()
    operator.finish()
    images = {pod["spec"]["containers"][0]["image"] for pod in operator.cluster.all("pods")}
    assert images == {operator.status["image"]} == {"trainer:1"}


def test_an_image_of_the_spec_is_for_the_next_attempts() -> None:
    operator = at_work("generate")
    operator.edit(spec={"image": "mine:1"})
    (job,) = operator.live_jobs()
    operator.cluster.remove(operator.cluster.at(job))
    operator.finish()
    newest = next(job for job in operator.cluster.all("jobs") if "train" in job["metadata"]["name"])
    assert newest["spec"]["template"]["spec"]["containers"][0]["image"] == operator.status["image"] == "mine:1"


def test_progress_is_shown() -> None:
    operator = at_work("train")
    line = '{"progress": {"done": %d, "total": 8, "unit": "steps", "secondsLeft": 60, "figures": {"loss": 0.5}}}\n'
    operator.cluster.logs["demo-i1-train-a1"] = "loading\n" + line % 2
    operator.read_logs()
    operator.look()
    assert operator.status["summary"]["progress"] == "25%"
    stage = operator.status["iterations"][1]["stages"][2]
    # Two workers, each of which did 2 of its 8.
    assert stage["progress"] == {"done": 4, "total": 16, "unit": "steps", "secondsLeft": 60, "figures": {"loss": "0.5"}}


def test_a_status_that_was_wiped_is_made_again_from_the_jobs() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script["train 1"] = [FAILS]
    operator.steps(lambda: "i1-train-a2" in operator.jobs())
    before, jobs = operator.attempts(), operator.jobs()
    operator.cluster.change(operator.run, "status", **dict.fromkeys(operator.status))
    rest(operator, 1)
    assert operator.attempts() == before
    assert operator.status["failures"] == {"application": 1}
    assert operator.jobs() == jobs
    operator.finish()


# Failures


def test_an_application_failure_is_retried_after_a_while_and_charged() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script["train 1"] = [FAILS]
    operator.finish()
    attempts = operator.status["iterations"][1]["stages"][2]["attempts"]
    assert [item["outcome"] for item in attempts] == ["Application", "Succeeded"]
    assert attempts[0]["message"].endswith("boom")
    waited = seconds(attempts[1]["startTime"]) - seconds(attempts[0]["finishTime"])
    assert 10 <= waited < 15
    assert operator.status["failures"] == {"application": 1}
    assert operator.status["iterations"][1]["stages"][2]["charged"] == 1


def seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def test_a_shard_may_fail_as_often_as_the_run_allows_and_then_the_run_fails() -> None:
    operator = SimulatedOperator(iterations=1, retries={"limit": 2})
    operator.cluster.script["score 1"] = [FAILS] * 3
    operator.finish("Failed")
    assert operator.condition("Succeeded")["reason"] == "RetriesExhausted"
    assert operator.jobs().count("i1-score-a1") == 1 and "i1-score-a2" not in operator.jobs()
    operator.edit(spec={"retries": {"limit": 5}})
    operator.finish()
    assert operator.attempts()["score 1"] == "Application Succeeded"


def test_a_users_fault_fails_the_run_and_a_retry_mends_it() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script["prepare"] = [USER_FAULT]
    operator.finish("Failed")
    assert operator.condition("Succeeded") | {"lastTransitionTime": ""} == {
        "type": "Succeeded",
        "status": "False",
        "reason": "UserFault",
        "message": "prepare: prompts.source lacks a column: name it",
        "observedGeneration": 1,
        "lastTransitionTime": "",
    }
    operator.edit(metadata={"annotations": {"sppo.dev/retry": "1"}})
    operator.finish()
    assert operator.attempts()["prepare 0"] == "UserFault Succeeded"
    told = [text.split()[0] for text in operator.events()]
    assert told.count("RunFailed") == told.count("StageFailed") == told.count("RunSucceeded") == 1


def test_a_retry_is_not_lost_while_the_run_is_suspended() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script["prepare"] = [USER_FAULT]
    operator.finish("Failed")
    operator.edit(metadata={"annotations": {"sppo.dev/retry": "1"}}, spec={"suspend": True})
    rest(operator)
    assert operator.phase == "Suspended"
    operator.edit(spec={"suspend": False})
    operator.finish()


def test_a_long_retry_annotation_renews_once() -> None:
    operator = SimulatedOperator(iterations=1, retries={"limit": 0})
    operator.edit(metadata={"annotations": {"sppo.dev/retry": "x" * 300}})
    operator.cluster.script["prepare"] = [FAILS]
    operator.finish("Failed")


def test_what_runs_beside_a_failure_is_stopped() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script |= {"evaluate 0": [HANGS], "generate 1": [USER_FAULT]}
    operator.finish("Failed")
    assert operator.live_jobs() == []
    assert operator.attempts()["evaluate 0"] == "Vanished"


def test_a_failed_evaluation_leaves_the_run_degraded() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script["evaluate 1"] = [USER_FAULT]
    operator.finish()
    assert operator.condition("Degraded")["reason"] == "EvaluationFailed"


def test_a_stage_that_takes_too_long_fails_and_says_so() -> None:
    operator = at_work("train", stages={"train": {"deadlineSeconds": 100}}, retries={"limit": 0})
    operator.cluster.wait(100)
    operator.finish("Failed")
    message = "stopped after spec.stages.train.deadlineSeconds 100: raise it or remove it"
    assert message in operator.condition("Succeeded")["message"]


def test_a_job_that_was_removed_is_made_again_uncharged_when_its_pods_are_gone() -> None:
    operator = at_work("generate")
    (job,) = operator.live_jobs()
    operator.cluster.remove(operator.cluster.at(job))
    operator.finish()
    assert operator.attempts()["generate 1"] == "Vanished Succeeded"
    assert operator.status["failures"] == {"disruption": 1}


def test_a_training_on_a_lost_node_is_given_up_after_a_minute() -> None:
    operator = SimulatedOperator(iterations=1, evaluation={"parallel": False})
    operator.cluster.disturb = Watchman(operator)
    operator.cluster.script["train 1"] = [LOST, LOST]
    operator.steps(running(operator, "train"))
    pods = operator.cluster.all("pods", "sppo.dev/stage=train")
    for pod in pods:
        operator.cluster.remove(operator.cluster.at(pod))
    operator.cluster.disturb = lambda call, done: None  # its pods count as gone
    operator.finish()
    assert operator.attempts()["train 1"] == "Disruption Succeeded"
    assert "demo-i1-train-a1" not in [job["metadata"]["name"] for job in operator.cluster.all("jobs")]


# What the API server refuses


def forbid(stage: str, error: ApiError) -> Callable[[Object], None]:
    def admission(body: Object) -> None:
        if body["metadata"].get("labels", {}).get("sppo.dev/stage") == stage and body.get("kind") == "Job":
            raise error

    return admission


QUANTITY = RefusedError('Job.batch "x" is invalid: spec...resources.limits[cpu]: must be a quantity', status=422)


@pytest.mark.parametrize("cure", ["spec", "annotation"])
def test_a_refused_template_fails_the_run_at_once_until_it_is_mended(cure: str) -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.admission = forbid("train", QUANTITY)
    operator.finish("Failed")
    assert operator.jobs() == []
    assert operator.condition("Succeeded")["reason"] == "Refused"
    assert operator.condition("Succeeded")["message"].startswith("train cannot be made: ")
    before = operator.status
    operator.restart()
    rest(operator, 3)
    assert operator.status == before
    operator.cluster.admission = lambda body: None
    if cure == "spec":
        operator.edit(spec={"retries": {"limit": 4}})
    else:
        operator.edit(metadata={"annotations": {"sppo.dev/retry": "1"}})
    operator.finish()


@pytest.mark.parametrize("error", [ForbiddenError("exceeded quota: jobs", status=403), UnavailableError("busy", status=500)])
def test_a_create_that_is_refused_on_the_way_shows_and_is_tried_again(error: ApiError) -> None:
    operator = SimulatedOperator(iterations=1)
    operator.steps(lambda: operator.phase == "Generating")
    operator.cluster.admission = forbid("score", error)
    operator.steps(lambda: operator.condition("Progressing")["reason"] == "Blocked")
    assert str(error) in operator.condition("Progressing")["message"]
    rest(operator)
    operator.cluster.admission = lambda body: None
    operator.finish()
    assert [text.split()[0] for text in operator.events()].count("Blocked") == 1


def test_a_missing_right_shows_on_the_first_visit() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.admission = forbid("prepare", ForbiddenError("exceeded quota: jobs", status=403))
    operator.steps(lambda: operator.condition("Progressing")["reason"] == "Blocked")
    operator.cluster.admission = lambda body: None
    operator.finish()


# Jobs of the same name


def foreign(operator: SimulatedOperator, owner_uid: str) -> Object:
    labels = {"sppo.dev/run": "demo", "sppo.dev/stage": "prepare", "sppo.dev/iteration": "0", "sppo.dev/attempt": "1"}
    owner = {"kind": "SPPORun", "name": "demo", "uid": owner_uid, "controller": True}
    metadata = {"name": "demo-i0-prepare-a1", "namespace": "lab", "labels": labels, "ownerReferences": [owner]}
    spec = {"suspend": True, "completions": 1, "template": {"spec": {"containers": []}}}
    return operator.cluster.add("jobs", {"metadata": metadata, "spec": spec})


def test_a_job_of_an_earlier_run_that_is_going_away_is_awaited() -> None:
    operator = SimulatedOperator(iterations=1)
    foreign(operator, "of an earlier run")
    operator.finish()
    assert operator.attempts()["prepare 0"] == "Succeeded"


def test_a_job_of_somebody_else_blocks_the_run_until_it_is_gone() -> None:
    operator = SimulatedOperator(iterations=1)
    owner = operator.cluster.add("configmaps", {"metadata": {"name": "somebody", "namespace": "lab"}})
    job = foreign(operator, owner["metadata"]["uid"])
    operator.steps(lambda: operator.condition("Progressing")["reason"] == "Blocked")
    assert operator.condition("Progressing")["message"].startswith("Job demo-i0-prepare-a1 belongs to somebody else")
    operator.cluster.remove(operator.cluster.at(job))
    operator.finish()
    assert operator.attempts()["prepare 0"] == "Succeeded"


# Slow watches and lost answers


def test_a_job_whose_creation_got_no_answer_is_found_with_its_end() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.disturb = once(lambda call, done: done and call.verb == "create", UnavailableError("timeout"))
    operator.look()
    for _ in range(5):  # while the watch of the Jobs is behind, it comes to its end
        operator.cluster.tick()
        operator.cluster.wait(1)
    operator.look()
    assert operator.attempts()["prepare 0"] == "Succeeded"
    for kind in Kind:
        operator.cluster.deliver(operator.cache, kind)
    operator.finish()
    assert set(operator.attempts().values()) == {"Succeeded"}


def test_pods_that_the_watch_did_not_show_yet_have_a_say_in_the_verdict() -> None:
    operator = SimulatedOperator(iterations=1)
    operator.cluster.script["train 1"] = [USER_FAULT, FAILS]
    operator.steps(running(operator, "train"))
    for _ in range(5):
        operator.cluster.tick()
    operator.cluster.deliver(operator.cache, Kind.JOB)
    operator.look()
    assert operator.condition("Succeeded")["message"] == "train 1: prompts.source lacks a column: name it"


def test_pods_that_outlive_their_job_are_awaited_though_no_watch_showed_them() -> None:
    operator = SimulatedOperator(iterations=1, evaluation={"parallel": False})
    operator.cluster.disturb = Watchman(operator)
    operator.cluster.script["train 1"] = [HANGS, HANGS]
    operator.steps(lambda: "i1-train-a1" in operator.jobs())
    operator.cluster.tick()
    operator.cluster.tick()
    (job,) = operator.live_jobs()
    operator.cluster.remove(operator.cluster.at(job))
    operator.cluster.deliver(operator.cache, Kind.JOB)
    operator.cluster.wait(60)
    operator.look()
    assert operator.attempts()["train 1"] == "Running"
    operator.finish()


def test_a_job_of_an_attempt_that_is_over_is_removed() -> None:
    operator = at_work("train")
    (job,) = operator.live_jobs()
    operator.cluster.remove(operator.cluster.at(job))
    operator.cluster.script["train 1"] = [HANGS] * 2
    operator.steps(lambda: "i1-train-a2" in operator.jobs())
    operator.cluster.disturb = lambda call, done: None
    metadata = {name: job["metadata"][name] for name in ("name", "namespace", "labels", "ownerReferences")}
    operator.cluster.add("jobs", {"metadata": metadata, "spec": job["spec"]})
    rest(operator, 2)
    assert [job["metadata"]["name"] for job in operator.live_jobs()] == ["demo-i1-train-a2"]


def once(matches: Callable[[Call, bool], bool], error: BaseException) -> Callable[[Call, bool], None]:
    """Raise at the first call that matches."""
    waiting = [error]

    def disturb(call: Call, done: bool) -> None:
        if waiting and matches(call, done):
            raise waiting.pop()

    return disturb


# Anything at any time


class Storm:
    """Draws disturbances; `calm` ends them all."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.queued = data.draw(st.booleans(), "queue")
        spec = {"queue": {"name": "team"}} if self.queued else {}
        parallel = data.draw(st.booleans(), "parallel")
        self.operator = SimulatedOperator(iterations=1, evaluation={"parallel": parallel}, **spec)
        self.cluster = self.operator.cluster
        self.cluster.sees_stopped_pods = data.draw(st.booleans(), "sees stopped pods")
        self.script = data.draw(st.dictionaries(STEPS, st.lists(BEHAVIOURS, max_size=3), max_size=4), "script")
        self.cluster.script.update({step: list(behaviours) for step, behaviours in self.script.items()})
        self.watchman = Watchman(self.operator)
        self.cluster.disturb = self.disturb
        self.fault: tuple[int, bool, BaseException] | None = None
        self.retries = 0

    def disturb(self, call: Call, done: bool) -> None:
        self.watchman(call, done)
        if self.fault is None or done != self.fault[1]:
            return
        left, when_done, error = self.fault
        self.fault = (left - 1, when_done, error) if left else None
        if not left:
            raise error

    def blow(self) -> None:
        event = self.data.draw(st.sampled_from(EVENTS))
        getattr(self, event)()

    def step(self) -> None:
        for _ in range(self.data.draw(st.integers(1, 5))):
            self.operator.step()

    def tick(self) -> None:
        self.cluster.tick()
        self.cluster.wait(self.data.draw(st.sampled_from([0, 1, 30, 100])))

    def deliver(self) -> None:
        self.cluster.deliver(self.operator.cache, self.data.draw(st.sampled_from(Kind)), self.data.draw(st.integers(1, 4)))
        self.operator.look()

    def look(self) -> None:
        self.operator.look()

    def fail(self) -> None:
        self.fault = self.data.draw(st.tuples(st.integers(0, 6), st.booleans(), st.sampled_from(FAULTS)))

    def delete_job(self) -> None:
        if jobs := self.cluster.all("jobs"):
            propagation = self.data.draw(st.sampled_from(["Background", "Foreground"]))
            job = self.data.draw(st.sampled_from(jobs))
            self.cluster.remove(self.cluster.at(job), propagation=propagation)

    def delete_pod(self) -> None:
        if pods := self.cluster.all("pods"):
            self.cluster.remove(self.cluster.at(self.data.draw(st.sampled_from(pods))))

    def suspend(self) -> None:
        self.operator.edit(spec={"suspend": not self.operator.run["spec"]["suspend"]})

    def grow(self) -> None:
        self.operator.edit(spec={"iterations": 2})

    def retry(self) -> None:
        self.retries += 1
        self.operator.edit(metadata={"annotations": {"sppo.dev/retry": str(self.retries)}})

    def turn_queue(self) -> None:
        self.cluster.admitting = not self.cluster.admitting

    def evict(self) -> None:
        admitted = [job for job in self.operator.live_jobs() if not job["spec"]["suspend"]]
        if self.queued and admitted and self.cluster.all("workloads"):
            job = self.data.draw(st.sampled_from(admitted))
            if "deletionTimestamp" not in job["metadata"]:
                self.cluster.evict(job)

    def calm(self) -> None:
        self.fault = None
        self.cluster.script.clear()
        self.cluster.admitting = True
        self.operator.edit(spec={"suspend": False})
        self.operator.due = self.cluster.now


EVENTS = [name for name in vars(Storm) if name not in ("disturb", "blow", "calm") and not name.startswith("_")]
STEPS = st.sampled_from([str(step) for step in schedule(2)])
BEHAVIOURS = st.sampled_from([FAILS, DISRUPTED, USER_FAULT])
FAULTS: list[BaseException] = [
    Crash(),
    UnavailableError("too many requests", status=429),
    UnavailableError("no answer in time"),
    ConflictError("the object has been modified", status=409),
]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_happens_the_run_comes_to_its_end(data: st.DataObject) -> None:
    storm = Storm(data)
    for _ in range(data.draw(st.integers(1, 25))):
        storm.blow()
    storm.calm()
    storm.operator.settle()  # a failure from before may come to light only now
    storm.retry()
    storm.operator.finish()
    iterations = storm.operator.run["spec"]["iterations"]
    done = {step for step, times in storm.cluster.work.items() if times}
    assert done == {str(step) for step in schedule(iterations)}
    assert max(storm.cluster.work.values()) == 1
    scripted = {behaviour for behaviours in storm.script.values() for behaviour in behaviours}
    failures = storm.operator.status.get("failures", {})
    assert FAILS in scripted or "application" not in failures
    assert USER_FAULT in scripted or "user" not in failures
    told = Counter(text for text in storm.operator.events() if text.startswith("Stage"))
    assert max(told.values()) == 1
