"""The Jobs and the Service of a run: one whole Job worked out by hand, then what differs, field by field."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from sppo_operator.decide import Stage, Step
from sppo_operator.errors import UserError
from sppo_operator.jobs import job_manifest, needs_service, service_manifest
from sppo_operator.policy import DISRUPTION_RULE, TERMINATED_RULE, USER_FAULT_RULE
from sppo_operator.spec import Run
from stage_jobs import RESOURCE, Change, env, job, pod, run

PREPARE_JOB = yaml.safe_load("""
apiVersion: batch/v1
kind: Job
metadata:
  name: demo-i0-prepare-a2
  namespace: lab
  labels: &labels
    sppo.dev/run: demo
    sppo.dev/stage: prepare
    sppo.dev/iteration: "0"
    sppo.dev/attempt: "2"
    app.kubernetes.io/managed-by: sppo-operator
  annotations: {sppo.dev/generation: "1"}
  ownerReferences:
  - {apiVersion: sppo.dev/v1alpha1, kind: SPPORun, name: demo, uid: "0815", controller: true, blockOwnerDeletion: true}
spec:
  suspend: false
  completionMode: Indexed
  completions: 1
  parallelism: 1
  backoffLimitPerIndex: 3
  maxFailedIndexes: 0
  podReplacementPolicy: Failed
  podFailurePolicy:
    rules:
    - action: FailJob
      onExitCodes:
        containerName: stage
        operator: In
        values: [64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78]
    - action: Ignore
      onPodConditions: [{type: DisruptionTarget, status: "True"}]
    - action: Ignore
      onExitCodes: {containerName: stage, operator: In, values: [143]}
  template:
    metadata:
      labels: *labels
      annotations: {}
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 30
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 1000
        runAsGroup: 1000
        fsGroup: 1000
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile: {type: RuntimeDefault}
      containers:
      - name: stage
        image: trainer:1
        command: [python, -m, sppo_trainer.prepare]
        env:
        - {name: SPPO_CONFIG, value: CONFIG}
        - {name: PYTHONUNBUFFERED, value: "1"}
        - {name: OMP_WAIT_POLICY, value: passive}
        - {name: HOME, value: /home/sppo}
        - name: OMP_NUM_THREADS
          valueFrom: {resourceFieldRef: {containerName: stage, resource: limits.cpu}}
        resources: {}
        volumeMounts:
        - {name: sppo-workspace, mountPath: /workspace}
        - {name: sppo-tmp, mountPath: /tmp}
        - {name: sppo-home, mountPath: /home/sppo}
        - {name: sppo-shm, mountPath: /dev/shm}
        terminationMessagePolicy: FallbackToLogsOnError
        securityContext:
          allowPrivilegeEscalation: false
          capabilities: {drop: [ALL]}
          readOnlyRootFilesystem: true
      volumes:
      - {name: sppo-workspace, persistentVolumeClaim: {claimName: models}}
      - {name: sppo-tmp, emptyDir: {}}
      - {name: sppo-home, emptyDir: {}}
      - {name: sppo-shm, emptyDir: {medium: Memory}}
""")
SERVICE = yaml.safe_load("""
apiVersion: v1
kind: Service
metadata:
  name: demo-train
  namespace: lab
  labels:
    sppo.dev/run: demo
    sppo.dev/stage: train
    app.kubernetes.io/managed-by: sppo-operator
  ownerReferences:
  - {apiVersion: sppo.dev/v1alpha1, kind: SPPORun, name: demo, uid: "0815", controller: true, blockOwnerDeletion: true}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {sppo.dev/run: demo, sppo.dev/stage: train}
  ports: [{name: rendezvous, port: 29400}]
""")


def with_judges(first: str, second: str) -> Change:
    """Both preferences are judges; the letters name the Secrets of their keys, and "" is none."""

    def change(spec: dict[str, Any]) -> None:
        spec["preference"] = judge(first)
        spec["evaluation"]["preference"] = judge(second)
        spec["model"]["tokenSecret"] = {"name": "hub", "key": "token"}

    return change


def judge(secret: str) -> dict[str, Any]:
    key = {"apiKeySecret": {"name": secret, "key": "key"}} if secret else {}
    return {
        "kind": "Judge",
        "judge": {"endpoint": "http://judge/v1", "model": "m", "rubric": "r", "opponents": 0} | key,
    }


def test_a_whole_job() -> None:
    manifest = job(Stage.PREPARE)
    config = pod(manifest)["containers"][0]["env"][0]
    assert json.loads(config["value"])["preference"]["verifier"]["rules"][0]["pattern"] == "^A$$"  # for the kubelet
    config["value"] = "CONFIG"
    assert manifest == PREPARE_JOB


def test_the_service() -> None:
    assert service_manifest(run(), "0815") == SERVICE


@pytest.mark.parametrize("stage", Stage)
def test_the_stage_is_what_its_labels_name_and_command_say(stage: Stage) -> None:
    manifest = job(stage)
    iteration = "0" if stage is Stage.PREPARE else "1"
    assert manifest["metadata"]["name"] == f"demo-i{iteration}-{stage}-a2"
    assert pod(manifest)["containers"][0]["command"] == ["python", "-m", f"sppo_trainer.{stage}"]
    for labels in (manifest["metadata"]["labels"], manifest["spec"]["template"]["metadata"]["labels"]):
        assert (labels["sppo.dev/stage"], labels["sppo.dev/iteration"]) == (stage, iteration)


@pytest.mark.parametrize("left", [0, 3], ids="{} retries left".format)
@pytest.mark.parametrize("stage", Stage)
def test_what_happens_to_failures(stage: Stage, left: int) -> None:
    spec = job(stage, retries_left=left)["spec"]
    rules = spec["podFailurePolicy"]["rules"]
    is_training = stage is Stage.TRAIN
    uncharged = "FailJob" if is_training else "Ignore"
    assert rules[USER_FAULT_RULE]["action"] == "FailJob"
    assert rules[USER_FAULT_RULE]["onExitCodes"]["values"] == list(range(64, 79))
    assert rules[DISRUPTION_RULE] == {
        "action": uncharged,
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    assert (rules[TERMINATED_RULE]["action"], rules[TERMINATED_RULE]["onExitCodes"]["values"]) == (uncharged, [143])
    limits = {name: spec[name] for name in spec if name.startswith(("backoff", "maxFailed"))}
    assert limits == ({"backoffLimit": 0} if is_training else {"backoffLimitPerIndex": left, "maxFailedIndexes": 0})


OWN = ["SPPO_CONFIG", "PYTHONUNBUFFERED", "OMP_WAIT_POLICY", "HOME"]
VARIABLES = {
    Stage.PREPARE: [*OWN, "OMP_NUM_THREADS", "HF_TOKEN"],
    Stage.GENERATE: [*OWN, "HF_HUB_OFFLINE", "OMP_NUM_THREADS"],
    Stage.SCORE: [*OWN, "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "SPPO_JUDGE_KEY"],
    Stage.TRAIN: [*OWN, "HF_HUB_OFFLINE", "OMP_NUM_THREADS"],
    Stage.EVALUATE: [*OWN, "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "SPPO_JUDGE_KEY", "SPPO_EVALUATION_JUDGE_KEY"],
}


@pytest.mark.parametrize("stage", Stage)
def test_each_stage_sees_the_variables_and_secrets_that_it_needs(stage: Stage) -> None:
    assert list(env(job(stage, with_judges("a", "b")))) == VARIABLES[stage]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("a", "b", {"SPPO_JUDGE_KEY": "a", "SPPO_EVALUATION_JUDGE_KEY": "b"}),
        ("a", "", {"SPPO_JUDGE_KEY": "a"}),
        ("", "b", {"SPPO_EVALUATION_JUDGE_KEY": "b"}),
        ("", "", {}),
    ],
    ids=["both have keys", "the first has one", "the second has one", "none has one"],
)
def test_each_judge_has_its_own_key(first: str, second: str, expected: dict[str, str]) -> None:
    values = env(job(Stage.EVALUATE, with_judges(first, second)))
    keys = {name: value["secretKeyRef"] for name, value in values.items() if name.endswith("_KEY")}
    assert keys == {name: {"name": secret, "key": "key"} for name, secret in expected.items()}


def test_the_hub_token_comes_from_its_secret() -> None:
    token = env(job(Stage.PREPARE, with_judges("a", "b")))["HF_TOKEN"]
    assert token == {"secretKeyRef": {"name": "hub", "key": "token"}}


@pytest.mark.parametrize("stage", [Stage.GENERATE, Stage.SCORE, Stage.TRAIN])
def test_workers_are_the_indexes_of_the_job(stage: Stage) -> None:
    manifest = job(stage, lambda spec: spec["stages"][stage.value].update(workers=3))
    assert (manifest["spec"]["completions"], manifest["spec"]["parallelism"]) == (3, 3)
    assert json.loads(env(manifest)["SPPO_CONFIG"])["workers"] == 3


def test_pods_that_train_together_find_the_first() -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["stages"]["train"].update(workers=2, processesPerWorker=8)

    manifest = job(Stage.TRAIN, change)
    assert needs_service(run(change))
    assert pod(manifest)["subdomain"] == service_manifest(run(change), "0815")["metadata"]["name"]
    assert env(manifest)["MASTER_ADDR"] == "demo-i1-train-a2-0.demo-train"
    assert env(manifest)["MASTER_PORT"] == "29400"
    assert json.loads(env(manifest)["SPPO_CONFIG"])["processesPerWorker"] == 8
    for stage in set(Stage) - {Stage.TRAIN}:
        assert "subdomain" not in pod(job(stage, change))
        assert "MASTER_ADDR" not in env(job(stage, change))


def test_a_pod_that_trains_alone_meets_nobody() -> None:
    manifest = job(Stage.TRAIN, lambda spec: spec["stages"]["train"].update(processesPerWorker=8))
    assert not needs_service(run())
    assert "subdomain" not in pod(manifest)
    assert "MASTER_ADDR" not in env(manifest)


@pytest.mark.parametrize(
    ("queue", "labels"),
    [
        ({"name": "team"}, {"kueue.x-k8s.io/queue-name": "team"}),
        (
            {"name": "team", "priorityClass": "research"},
            {"kueue.x-k8s.io/queue-name": "team", "kueue.x-k8s.io/priority-class": "research"},
        ),
    ],
    ids=["name", "name and priority"],
)
def test_a_queue_starts_the_job(queue: dict[str, str], labels: dict[str, str]) -> None:
    manifest = job(Stage.GENERATE, lambda spec: spec.update(queue=queue))
    assert manifest["spec"]["suspend"] is True
    # Kueue would take a pod with its label for one that nobody else looks after.
    of_the_pods = manifest["spec"]["template"]["metadata"]["labels"]
    assert manifest["metadata"]["labels"] == of_the_pods | labels
    assert not labels.keys() & of_the_pods.keys()


def test_a_deadline_holds_for_its_stage() -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["stages"]["score"]["deadlineSeconds"] = 7200

    assert job(Stage.SCORE, change)["spec"]["activeDeadlineSeconds"] == 7200
    assert "activeDeadlineSeconds" not in job(Stage.TRAIN, change)["spec"]


def test_a_bucket_is_no_workspace_for_pods() -> None:
    with pytest.raises(UserError, match=r"spec.workspace.uri is s3://models, and .* with spec.workspace.claimName"):
        job(Stage.PREPARE, lambda spec: spec.update(workspace={"uri": "s3://models"}))


DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


@given(
    name=st.from_regex(r"[a-z]([-a-z0-9]{0,36}[a-z0-9])?", fullmatch=True),
    stage=st.sampled_from([Stage.GENERATE, Stage.SCORE, Stage.TRAIN]),
    iteration=st.integers(1, 100),
    attempt=st.integers(1, 99_999),
)
@example(name="r" * 38, stage=Stage.GENERATE, iteration=100, attempt=99_999)
def test_every_name_and_label_is_valid(name: str, stage: Stage, iteration: int, attempt: int) -> None:
    resource = copy.deepcopy(RESOURCE)
    resource["metadata"]["name"] = name
    workers = {Stage.TRAIN: 64}.get(stage, 256)
    resource["spec"]["stages"][stage.value]["workers"] = workers
    manifest = job_manifest(
        Run.of(resource), "0815", Step(iteration, stage), attempt, image="trainer:1", retries_left=0
    )
    hostname_of_the_last_pod = f"{manifest['metadata']['name']}-{workers - 1}"
    assert DNS_LABEL.fullmatch(hostname_of_the_last_pod)
    assert DNS_LABEL.fullmatch(service_manifest(Run.of(resource), "0815")["metadata"]["name"])
    for labels in (manifest["metadata"]["labels"], manifest["spec"]["template"]["metadata"]["labels"]):
        assert all(LABEL_VALUE.fullmatch(value) for value in labels.values())
    if stage is Stage.TRAIN:
        address, service = env(manifest)["MASTER_ADDR"].split(".")
        assert (address, service) == (f"{manifest['metadata']['name']}-0", pod(manifest)["subdomain"])
