"""Why pods do not start: what scheduler and kubelet of Kubernetes 1.34 say, and the remedy."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cluster_objects import NOW, QUEUED_RUN, at, condition, exited, job, pod
from sppo_operator.decide import Stage
from sppo_operator.observe import observe

TRAIN = job(Stage.TRAIN)
SCHEDULED = condition("PodScheduled", since=10)
NO_SANDBOX = condition("PodReadyToStartContainers", status="False", since=10)
SANDBOX = condition("PodReadyToStartContainers", since=20)
TEMPLATE = "spec.stages.train.template"


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def unscheduled(message: str) -> dict[str, Any]:
    return pod(TRAIN, "t-0", "Pending", None, condition("PodScheduled", "Unschedulable", message, status="False", since=10))  # fmt: skip


def unstarted(reason: str, message: str = "") -> dict[str, Any]:
    return pod(TRAIN, "t-0", "Pending", waiting(reason, message), SCHEDULED, SANDBOX)


PULL = 'Back-off pulling image "trainer:1": ErrImagePull: failed to resolve reference "docker.io/library/trainer:1": not found'
STUCK = {
    "the image is not there": (
        unstarted("ImagePullBackOff", PULL),
        f"pod t-0 cannot start (ImagePullBackOff: {PULL}): correct spec.image, or name the registry's Secret in {TEMPLATE}.imagePullSecrets",
    ),
    "the image's name is none": (
        unstarted("InvalidImageName", 'Failed to apply default image tag "a b": couldn\'t parse image name "a b"'),
        'pod t-0 cannot start (InvalidImageName: Failed to apply default image tag "a b": couldn\'t parse image name "a b"): correct spec.image',
    ),
    "a Secret is missing": (
        unstarted("CreateContainerConfigError", 'secret "hf" not found'),
        f'pod t-0 cannot start (CreateContainerConfigError: secret "hf" not found): create what is missing, or correct the run\'s references to Secrets and {TEMPLATE}',
    ),
    "the runtime fails without a word": (
        unstarted("RunContainerError"),
        "pod t-0 cannot start (RunContainerError): kubectl describe pod t-0 shows more",
    ),
    "no GPU is free": (
        unscheduled("0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint(s). no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."),
        f"pod t-0 finds no node (0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint(s)): lower {TEMPLATE}.resources, or wait for or add nodes that have them",
    ),
    "all nodes are tainted": (
        unscheduled("0/1 nodes are available: 1 node(s) had untolerated taint {gpu: }. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."),
        f"pod t-0 finds no node (0/1 nodes are available: 1 node(s) had untolerated taint {{gpu: }}): add {TEMPLATE}.tolerations, or nodes without the taint",
    ),
    "no node has the labels": (
        unscheduled("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."),
        f"pod t-0 finds no node (0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector): correct {TEMPLATE}.nodeSelector and affinity, or label a node",
    ),
    "the claim does not exist": (
        unscheduled('0/1 nodes are available: persistentvolumeclaim "models" not found. not found'),
        'pod t-0 finds no node (0/1 nodes are available: persistentvolumeclaim "models" not found. not found): create the claim',
    ),
    "the claim has no volume": (
        unscheduled("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"),
        "pod t-0 finds no node (0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found): the claim has no volume: kubectl describe pvc shows why",
    ),
    "something new": (
        unscheduled("0/1 nodes are available: 1 node(s) are on the moon."),
        "pod t-0 finds no node (0/1 nodes are available: 1 node(s) are on the moon): kubectl describe pod t-0 shows more",
    ),
    "a volume cannot be mounted": (
        pod(TRAIN, "t-0", "Pending", waiting("ContainerCreating"), SCHEDULED, NO_SANDBOX),
        "pod t-0 waits for its volumes or its network: kubectl describe pod t-0 shows why",
    ),
    "the node is silent": (
        pod(TRAIN, "t-0", "Pending", None, SCHEDULED),
        "pod t-0 was not taken up by node-1: kubectl describe node node-1 shows why",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("it", "why"), STUCK.values(), ids=STUCK)
def test_a_pod_that_does_not_start_is_explained_after_a_minute(it: dict[str, Any], why: str) -> None:
    early = observe(TRAIN, [it], now=NOW + timedelta(seconds=69))
    assert (early.stuck, early.look_again_seconds) == ("", 1.0)
    late = observe(TRAIN, [it], now=NOW + timedelta(seconds=70))
    assert (late.stuck, late.look_again_seconds) == (why, None)
    assert len(late.stuck) < 512, "it has to fit into a status"


def test_a_pod_that_no_scheduler_has_seen() -> None:
    seen = observe(TRAIN, [pod(TRAIN, "t-0", "Pending")], now=NOW + timedelta(seconds=60))
    assert seen.stuck == "pod t-0 was not seen by a scheduler: check that the cluster's scheduler runs"


@pytest.mark.parametrize(
    ("created", "status", "second"),
    [(0, {}, 60), (0, {"startTime": at(30), "active": 0}, 90)],
    ids=["since it was made", "since it was resumed"],
)
def test_a_job_that_gets_no_pods(created: float, status: dict[str, Any], second: float) -> None:
    it = job(Stage.TRAIN, created=created, **status)
    early = observe(it, [], now=NOW + timedelta(seconds=second - 1))
    assert (early.stuck, early.look_again_seconds) == ("", 1.0)
    late = observe(it, [], now=NOW + timedelta(seconds=second))
    assert late.stuck == (
        "Job demo-i1-train-a1 gets no pods (a quota, Pod Security or a missing service account may forbid it): "
        "kubectl describe job demo-i1-train-a1 shows why"
    )


FINE = {
    "it runs": pod(TRAIN, "t-0", "Running", {"running": {}}, SCHEDULED, SANDBOX),
    "its image is being pulled": pod(TRAIN, "t-0", "Pending", waiting("ContainerCreating"), SCHEDULED, SANDBOX),
    "it is being deleted": pod(TRAIN, "t-0", "Pending", waiting("ErrImagePull"), SCHEDULED, deleted=3600),
    "it has failed": pod(TRAIN, "t-0", "Failed", exited(1)),
}


@pytest.mark.parametrize("it", FINE.values(), ids=FINE)
def test_nothing_is_said_about_a_pod_that(it: dict[str, Any]) -> None:
    seen = observe(TRAIN, [it, pod(TRAIN, "t-1", "Running", {"running": {}})], now=NOW + timedelta(hours=1))
    assert (seen.stuck, seen.look_again_seconds) == ("", None)


@pytest.mark.parametrize(
    "it",
    [
        job(Stage.TRAIN, suspend=True),
        job(Stage.TRAIN, of=QUEUED_RUN, suspend=True),
        job(Stage.TRAIN, active=2),
        job(Stage.TRAIN, condition("FailureTarget", "BackoffLimitExceeded")),
    ],
    ids=["suspended", "queued", "its pods are not in the cache yet", "failing"],
)
def test_nothing_is_said_about_a_job_without_pods_that_is(it: dict[str, Any]) -> None:
    assert observe(it, [], now=NOW + timedelta(hours=1)).stuck == ""


def test_of_several_pods_the_one_that_waits_longest_is_explained() -> None:
    newer = pod(TRAIN, "t-0", "Pending", waiting("ErrImagePull", "no such host"), condition("PodScheduled", since=40))
    older = pod(TRAIN, "t-1", "Pending", None, condition("PodScheduled", "Unschedulable", "1 Insufficient cpu", status="False", since=20))  # fmt: skip
    early = observe(TRAIN, [newer, older], now=NOW + timedelta(seconds=50))
    assert (early.stuck, early.look_again_seconds) == ("", 30.0)
    late = observe(TRAIN, [newer, older], now=NOW + timedelta(seconds=200))
    assert late.stuck.startswith("pod t-1 finds no node (1 Insufficient cpu): ")
