"""What a Job says of an attempt besides its end: which one it is, when its pods may run, and their GPUs."""

from __future__ import annotations

from typing import Any

import pytest
from cluster_objects import NOW, RUN, at, condition, job, run
from job_conditions import COMPLETE, RESUMED
from sppo_operator.decide import Stage, Step
from sppo_operator.jobs import job_manifest
from sppo_operator.observe import Observation, observe


def test_a_job_says_which_attempt_it_is() -> None:
    seen = observe(job(Stage.SCORE, iteration=3, attempt=2, created=5), [], now=NOW)
    assert seen == Observation(
        generation=1,
        job="demo-i3-score-a2",
        uid="uid-of-demo-i3-score-a2",
        step=Step(3, Stage.SCORE),
        attempt=2,
        image="trainer:1",
        created=at(5),
        look_again_seconds=65.0,
    )


@pytest.mark.parametrize(
    ("it", "active_since", "paused_at"),
    [
        (job(), None, None),
        (job(startTime=at(5)), at(5), None),
        (job(Stage.TRAIN, condition("Suspended", since=7), suspend=True, startTime=at(5)), None, at(7)),
        (job(Stage.TRAIN, suspend=True, startTime=at(5)), at(5), None),
        (job(Stage.TRAIN, condition("Suspended", since=7), startTime=at(5)), None, at(7)),
        (job(Stage.TRAIN, RESUMED, startTime=at(20)), at(20), None),
        (job(Stage.TRAIN, COMPLETE, startTime=at(5)), at(5), None),
    ],
    ids=["new", "at work", "stopped", "about to be stopped", "about to be resumed", "resumed", "ended"],
)
def test_when_pods_may_run(it: dict[str, Any], active_since: str | None, paused_at: str | None) -> None:
    seen = observe(it, [], now=NOW)
    assert (seen.active_since, seen.paused_at) == (active_since, paused_at)


NO_GPUS = (
    "nvidia.com/gpumem", "nvidia.com/gpucores", "nvidia.com/gpumem-percentage", "volcano.sh/gpu-memory", "volcano.sh/gpu-number",
    "aliyun.com/gpu-mem", "gpu.intel.com/millicores", "gpu.intel.com/memory.max", "gpu.intel.com/i915_monitoring",
    "example.com/gpu-seats", "example.com/fpga", "gpus.example.com/x", "nvidia.com/mig-manager",
)  # fmt: skip


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [
        ({}, 0),
        ({"limits": {"cpu": "8", "memory": "64Gi", "ephemeral-storage": "1Gi"}}, 0),
        ({"limits": {"nvidia.com/gpu": "8"}}, 16),
        ({"limits": {"nvidia.com/gpu": 4}, "requests": {"nvidia.com/gpu": 4, "cpu": 1}}, 8),
        ({"requests": {"amd.com/gpu": "1"}}, 2),
        ({"limits": {"nvidia.com/mig-1g.10gb": "2", "nvidia.com/gpu.shared": "1"}}, 6),
        ({"limits": {"gpu.intel.com/i915": "1"}}, 2),
        ({"limits": {"gpu.intel.com/xe": "1", "nvidia.com/mig-1g.10gb.me": "1", "nvidia.com/mig-7g.80gb.shared": "1"}}, 6),
        ({"limits": dict.fromkeys(NO_GPUS, "9")}, 0),
        ({"limits": {"nvidia.com/gpu": "1k"}}, 2000),
        ({"limits": {"nvidia.com/gpu": "500m"}}, 0),
        ({"limits": {"nvidia.com/gpu": "9E"}}, 1_000_000),
        ({"limits": None, "requests": None}, 0),
    ],
    ids=["nothing", "none", "eight a pod", "number", "request", "parts", "intel", "more parts", "no GPUs", "thousands", "no whole number", "absurd", "null"],
)  # fmt: skip
def test_gpus_of_both_workers_of_a_training(resources: dict[str, Any], gpus: int) -> None:
    it = job(Stage.TRAIN, of=run(stages={"train": {"workers": 2, "template": {"resources": {}}}}))
    it["spec"]["template"]["spec"]["containers"][0]["resources"] = resources
    assert observe(it, [], now=NOW).gpus == gpus


@pytest.mark.parametrize("stage", list(Stage))
def test_every_job_that_is_made_is_understood(stage: Stage) -> None:
    step = Step(0 if stage is Stage.PREPARE else 2, stage)
    made = job_manifest(RUN, "run-uid", step, 7, image="trainer:2", retries_left=1)
    created = made | {"metadata": made["metadata"] | {"uid": "u", "creationTimestamp": at(0)}}
    seen = observe(created, (), now=NOW)
    assert (seen.step, seen.attempt, seen.image, seen.end) == (step, 7, "trainer:2", None)
