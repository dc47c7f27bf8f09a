"""A run from `kubectl apply` to its end, and what its user may do to it on the way."""

from __future__ import annotations

import time
from typing import Any

import pytest
from lab import Lab, condition, digests, stage
from namespaces import Namespace
from operators import Operator
from standin_notes import Notes
from standin_runs import STEPS, failing, standin

MINUTES = 60.0
LONGEST_NAME = "a23456789012345678901234567890123456z8"
SIZE = {"generation": {"chunkPrompts": 2}}
"""Five chunks of prompts."""
HOLDS = {
    "prepare": "prepare:0:hold",
    "generate": "generate:1:hold:after=1",
    "score": "score:1:hold:after=1",
    "train": "train:1:hold:after=1",
    "evaluate": "evaluate:1:hold",
}
"""By stage, what makes a run of this name hold in the middle of it."""
STOP_SECONDS = 15
"""Of the 30 that a pod has, on a machine with other work to do."""


def notes(space: Namespace, run: str) -> Notes:
    return Notes(space.folder(run))


def test_a_finished_run_goes_on_when_iterations_grow(lab: Lab, namespace: Namespace) -> None:
    namespace.apply(standin(iterations=2))
    finished = lab.until_over(namespace.name, "demo", seconds=4 * MINUTES)
    assert condition(finished, "Succeeded")["reason"] == "Finished"
    assert (finished["status"]["phase"], finished["status"]["bestIteration"]) == ("Succeeded", 2)

    namespace.patch("demo", {"iterations": 3, "stages": {"generate": {"template": cpu("11m")}}})
    lab.until_run(namespace.name, "demo", lambda run: condition(run, "Succeeded")["status"] == "Unknown")
    longer = lab.until_over(namespace.name, "demo", seconds=3 * MINUTES)
    assert condition(longer, "Succeeded")["status"] == "True"
    assert longer["status"]["summary"]["iteration"] == "3/3"
    assert digests(finished).items() <= digests(longer).items()
    assert set(notes(namespace, "demo").start_counts().values()) == {1}
    assert [requested_cpu(lab, namespace, f"demo-i{number}-generate-a1") for number in (1, 2, 3)] == ["", "", "11m"]


def test_suspend_stops_every_stage_within_seconds_and_resume_repeats_nothing(
    lab: Lab, namespace: Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, hold in HOLDS.items():
        namespace.apply(standin(name, **SIZE, stages=failing(hold)))
    for name in HOLDS:
        notes(namespace, name).until_held(step(name), 4 * MINUTES)
    lab.until_run(namespace.name, "generate", lambda run: run["status"]["summary"].get("progress") == "20%")

    codes, seconds = suspend(lab, namespace)
    assert codes == dict.fromkeys(HOLDS, 143)
    assert seconds < STOP_SECONDS
    with capsys.disabled():
        print(f"\nsuspend: the pods of {len(HOLDS)} runs were gone after {seconds:.1f} s")
    for name in HOLDS:
        run = lab.until_run(namespace.name, name, lambda run: run["status"]["phase"] == "Suspended")
        assert condition(run, "Suspended")["status"] == "True"
        assert "suspend" in condition(run, "Progressing")["message"]

    for name in HOLDS:
        notes(namespace, name).release()
        namespace.patch(name, {"suspend": False})
    runs = {name: lab.until_over(namespace.name, name, seconds=5 * MINUTES) for name in HOLDS}
    for name, run in runs.items():
        assert condition(run, "Succeeded")["status"] == "True"
        assert condition(run, "Suspended")["status"] == "False"
        assert run["status"].get("failures", {}) == {}
        assert notes(namespace, name).start_counts() == dict.fromkeys(STEPS, 1) | {step(name): 2}
        assert notes(namespace, name).done_twice() == []
        assert digests(run) == digests(runs["evaluate"])


def test_deleting_a_run_leaves_its_workspace_to_the_next_of_its_name(lab: Lab, namespace: Namespace) -> None:
    holding = merged_stages(failing("train:1:hold"), {"train": {"workers": 2}})
    namespace.apply(standin(stages=holding))
    notes(namespace, "demo").until_held("train 1", 3 * MINUTES)
    assert {item["metadata"]["name"] for item in lab.list("services", namespace.name)} == {"demo-train"}

    lab.delete("spporuns", namespace.name, "demo")
    for plural in ("jobs", "pods", "services"):
        lab.until(plural, namespace.name, lambda objects: not objects, seconds=1 * MINUTES)
    assert (namespace.folder("demo") / "i1/score/manifest.json").exists()

    notes(namespace, "demo").release()
    namespace.apply(standin(stages=holding))
    run = lab.until_over(namespace.name, "demo", seconds=3 * MINUTES)
    assert condition(run, "Succeeded")["status"] == "True"
    assert notes(namespace, "demo").done_twice() == []


def test_two_namespaces_hold_a_run_of_the_same_and_longest_name(
    lab: Lab, namespace: Namespace, operator: Operator
) -> None:
    earlier = operator.forbidden()  # by an API server that a test restarted: it had not read its roles yet
    other = Namespace.create(lab, "the-other-namespace")
    try:
        for space, seed in ((namespace, 1), (other, 2)):
            space.apply(standin(LONGEST_NAME, seed=seed, stages={"train": {"workers": 2}}))
        runs = [lab.until_over(space.name, LONGEST_NAME, seconds=4 * MINUTES) for space in (namespace, other)]
        assert [condition(run, "Succeeded")["status"] for run in runs] == ["True", "True"]
        assert not set(digests(runs[0]).values()) & set(digests(runs[1]).values())
        for space in (namespace, other):
            assert notes(space, LONGEST_NAME).start_counts() == dict.fromkeys(STEPS, 1) | {"train 1": 2}
        assert operator.forbidden() == earlier
    finally:
        other.remove()


def test_an_operator_upgraded_in_mid_run_keeps_the_image_of_the_run(
    lab: Lab, namespace: Namespace, operator: Operator
) -> None:
    namespace.apply(standin(stages=failing("generate:1:hold")))
    notes(namespace, "demo").until_held("generate 1", 2 * MINUTES)
    operator.configure(SPPO_TRAINER_IMAGE="registry.invalid/sppo-trainer:next")
    try:
        namespace.apply(standin("later"))
        lab.until_run(namespace.name, "later", lambda run: "image" in run.get("status", {}), seconds=2 * MINUTES)
        notes(namespace, "demo").release()
        run = lab.until_over(namespace.name, "demo", seconds=3 * MINUTES)
    finally:
        operator.configure(SPPO_TRAINER_IMAGE=operator.trainer)
    assert condition(run, "Succeeded")["status"] == "True"
    assert run["status"]["image"] == operator.trainer
    attempts = [
        attempt for shown in run["status"]["iterations"] for found in shown["stages"] for attempt in found["attempts"]
    ]
    assert [attempt["image"] for attempt in attempts] == [operator.trainer] * len(STEPS)
    later = lab.until_run(namespace.name, "later", lambda run: stage(run, 0, "prepare").get("attempts"))
    assert stage(later, 0, "prepare")["attempts"][0]["image"] == "registry.invalid/sppo-trainer:next"


def step(name: str) -> str:
    return name if name == "prepare" else f"{name} 1"


def suspend(lab: Lab, space: Namespace) -> tuple[dict[str, int], float]:
    """Suspend all runs; the exit codes of the pods that hold, by run, and the seconds until they were gone."""
    codes: dict[str, int] = {}
    holding: set[str] = set()
    begin = 0.0

    def all_gone(pods: dict[str, Any]) -> bool:
        nonlocal begin
        if not holding:
            found = {name for name, pod in pods.items() if holds(pod)}
            if len(found) < len(HOLDS):
                return False  # the kubelet has yet to tell
            holding.update(found)
            begin = time.monotonic()
            for run in HOLDS:  # now that the watch has begun, which misses nothing
                space.patch(run, {"suspend": True})
        for name in holding & pods.keys():
            for container in pods[name]["status"].get("containerStatuses", ()):
                if ended := container["state"].get("terminated"):
                    codes[pods[name]["metadata"]["labels"]["sppo.dev/run"]] = ended["exitCode"]
        return not holding & pods.keys()

    lab.until("pods", space.name, all_gone, seconds=2 * MINUTES)
    return codes, time.monotonic() - begin


def holds(pod: dict[str, Any]) -> bool:
    labels = pod["metadata"]["labels"]
    here = labels["sppo.dev/stage"] == labels["sppo.dev/run"]
    return here and pod["status"]["phase"] == "Running"


def cpu(requests: str) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": requests}}}


def requested_cpu(lab: Lab, space: Namespace, job: str) -> str:
    found = lab.get("jobs", space.name, job)
    assert found is not None
    requests: dict[str, str] = found["spec"]["template"]["spec"]["containers"][0]["resources"].get("requests", {})
    return requests.get("cpu", "")


def merged_stages(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {name: one.get(name, {}) | other.get(name, {}) for name in one.keys() | other.keys()}


def test_a_namespace_goes_with_its_runs(lab: Lab, operator: Operator) -> None:
    space = Namespace.create(lab, "short-lived")
    space.apply(standin(stages=failing("generate:1:hold")))
    notes(space, "demo").until_held("generate 1", 3 * MINUTES)
    lab.delete("namespaces", "", space.name)
    lab.until("namespaces", "", lambda spaces: space.name not in spaces, seconds=3 * MINUTES)
    space.remove()
