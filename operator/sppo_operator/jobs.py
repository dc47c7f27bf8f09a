"""What a run is made of in the cluster: one Job per attempt, and the Service by which the pods of a training meet.

Pure. The rules for failures stand in policy.py, since observe.py reads what Kubernetes says about them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sppo_operator.decide import Stage, Step
from sppo_operator.errors import UserError
from sppo_operator.policy import TERMINATED, USER_FAULT
from sppo_operator.render import escape_for_kubelet, stage_config
from sppo_operator.resources import GROUP, VERSION
from sppo_operator.spec import Run

RUN_LABEL: Final = "sppo.dev/run"
STAGE_LABEL: Final = "sppo.dev/stage"
ITERATION_LABEL: Final = "sppo.dev/iteration"
ATTEMPT_LABEL: Final = "sppo.dev/attempt"
GENERATION_ANNOTATION: Final = "sppo.dev/generation"
"""Which version of the run a Job was made from."""
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL: Final = "kueue.x-k8s.io/priority-class"
CONTAINER: Final = "stage"
WORKSPACE: Final = "/workspace"
HOME: Final = "/home/sppo"
USER_ID: Final = 1000
"""Of the image's user, and the group that owns the workspace."""
MASTER_PORT: Final = 29400
GRACE_SECONDS: Final = 30
"""Stages end at once at SIGTERM; the rest is for busy nodes."""
WORKSPACE_VOLUME, TEMPORARY_VOLUME, HOME_VOLUME, MEMORY_VOLUME = "sppo-workspace", "sppo-tmp", "sppo-home", "sppo-shm"
"""A volume of the user with such a name is refused by the API server as a duplicate."""
POD_FIELDS = (
    "nodeSelector",
    "tolerations",
    "affinity",
    "priorityClassName",
    "runtimeClassName",
    "serviceAccountName",
    "imagePullSecrets",
)
"""Fields of a stage's template that go into the pod as they are."""

POD_SECURITY: Final = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "fsGroupChangePolicy": "OnRootMismatch",  # or every start would walk through all models
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Final = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
"""Both together are what Pod Security calls restricted."""

Manifest = dict[str, Any]


def job_manifest(run: Run, uid: str, step: Step, attempt: int, *, image: str, retries_left: int) -> Manifest:
    """The Job of one attempt.

    `uid` is the run's, `retries_left` how many more failures of this step are made good. Raises UserError if the
    configuration is too large or the workspace is no claim.
    """
    workers = run.workers(step.stage)
    labels = _labels(run, step.stage) | {ITERATION_LABEL: str(step.iteration), ATTEMPT_LABEL: str(attempt)}
    template = template_of(run, step.stage)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            **_metadata(run, uid, run.job_name(step, attempt), labels | _queue_labels(run)),
            "annotations": {GENERATION_ANNOTATION: str(run.generation)},
        },
        "spec": {
            "suspend": "queue" in run.spec,  # Kueue starts what it has admitted
            "completionMode": "Indexed",
            "completions": workers,
            "parallelism": workers,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _failure_rules(step.stage)},
            **_failure_limits(step.stage, retries_left),
            **_deadline(run, step.stage),
            "template": {
                "metadata": {
                    "labels": {**template.get("labels", {}), **labels},
                    "annotations": dict(template.get("annotations", {})),
                },
                "spec": _pod(run, step, attempt, image),
            },
        },
    }


def needs_service(run: Run) -> bool:
    return run.workers(Stage.TRAIN) > 1


def service_manifest(run: Run, uid: str) -> Manifest:
    """The headless Service that names the pods of a training; made before their Job, or DNS caches failed lookups."""
    labels = _labels(run, Stage.TRAIN)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(run, uid, _service_name(run), labels),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,  # ranks meet before any pod is ready
            "selector": {RUN_LABEL: labels[RUN_LABEL], STAGE_LABEL: labels[STAGE_LABEL]},
            "ports": [{"name": "rendezvous", "port": MASTER_PORT}],
        },
    }


def _metadata(run: Run, uid: str, name: str, labels: Mapping[str, str]) -> Manifest:
    owner = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "SPPORun", "name": run.name, "uid": uid}
    return {
        "name": name,
        "namespace": run.namespace,
        "labels": dict(labels),
        "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
    }


def _labels(run: Run, stage: Stage) -> dict[str, str]:
    return {RUN_LABEL: run.name, STAGE_LABEL: stage.value, "app.kubernetes.io/managed-by": "sppo-operator"}


def _queue_labels(run: Run) -> dict[str, str]:
    queue = run.spec.get("queue", {})
    names = {QUEUE_LABEL: "name", PRIORITY_LABEL: "priorityClass"}
    return {label: queue[name] for label, name in names.items() if name in queue}


def _service_name(run: Run) -> str:
    return f"{run.name}-{Stage.TRAIN.value}"


def _settings(run: Run, stage: Stage) -> Mapping[str, Any]:
    settings: Mapping[str, Any] = run.spec["stages"][stage.value]
    return settings


def template_of(run: Run, stage: Stage) -> Mapping[str, Any]:
    template: Mapping[str, Any] = _settings(run, stage).get("template", {})
    return template


def _failure_limits(stage: Stage, retries_left: int) -> dict[str, int]:
    """Shards are retried one by one within the Job; a training ends whole, and the next attempt is another Job."""
    if stage is Stage.TRAIN:
        return {"backoffLimit": 0}
    return {"backoffLimitPerIndex": retries_left, "maxFailedIndexes": 0}


def _failure_rules(stage: Stage) -> list[Manifest]:
    """In the order of policy.py; the first that matches decides.

    What is no fault of the stage is not charged: a shard's pod is replaced, and a training goes on as another Job.
    """
    uncharged = "FailJob" if stage is Stage.TRAIN else "Ignore"
    return [
        {"action": "FailJob", "onExitCodes": _exit_codes(USER_FAULT)},
        {"action": uncharged, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": uncharged, "onExitCodes": _exit_codes([TERMINATED])},
    ]


def _exit_codes(codes: Iterable[int]) -> Manifest:
    return {"containerName": CONTAINER, "operator": "In", "values": list(codes)}


def _deadline(run: Run, stage: Stage) -> dict[str, int]:
    settings = _settings(run, stage)
    return {"activeDeadlineSeconds": settings["deadlineSeconds"]} if "deadlineSeconds" in settings else {}


def _pod(run: Run, step: Step, attempt: int, image: str) -> Manifest:
    template = template_of(run, step.stage)
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # they are environment variables, and a namespace may have thousands of Services
        "securityContext": POD_SECURITY,
        "containers": [_container(run, step, attempt, image)],
        "volumes": [*_volumes(run), *template.get("volumes", [])],
    }
    if step.stage is Stage.TRAIN and needs_service(run):
        pod["subdomain"] = _service_name(run)
    return pod | {field: template[field] for field in POD_FIELDS if field in template}


def _container(run: Run, step: Step, attempt: int, image: str) -> Manifest:
    template = template_of(run, step.stage)
    mounts = {
        WORKSPACE_VOLUME: WORKSPACE,
        TEMPORARY_VOLUME: "/tmp",  # noqa: S108 - an emptyDir of the pod's own
        HOME_VOLUME: HOME,
        MEMORY_VOLUME: "/dev/shm",  # noqa: S108 - the runtime's own has 64 MB, too few for NCCL and vLLM
    }
    return {
        "name": CONTAINER,
        "image": image,
        "command": ["python", "-m", f"sppo_trainer.{step.stage.value}"],
        "env": _environment(run, step, attempt),
        "resources": dict(template.get("resources", {})),
        "volumeMounts": [
            *({"name": name, "mountPath": path} for name, path in mounts.items()),
            *template.get("volumeMounts", []),
        ],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": CONTAINER_SECURITY,
    }


def workspace_volume(run: Run) -> Manifest:
    """Raises UserError if the workspace is no claim."""
    workspace = run.spec["workspace"]
    if "claimName" not in workspace:
        raise UserError(
            f"spec.workspace.uri is {workspace['uri']}, and stages need a mounted folder: create the run anew with "
            "spec.workspace.claimName"
        )
    return {"name": WORKSPACE_VOLUME, "persistentVolumeClaim": {"claimName": workspace["claimName"]}}


def _volumes(run: Run) -> list[Manifest]:
    return [
        workspace_volume(run),
        {"name": TEMPORARY_VOLUME, "emptyDir": {}},
        {"name": HOME_VOLUME, "emptyDir": {}},
        {"name": MEMORY_VOLUME, "emptyDir": {"medium": "Memory"}},
    ]


def _environment(run: Run, step: Step, attempt: int) -> list[Manifest]:
    """Ours first, so that the template's may refer to them; one of the template replaces ours of the same name."""
    theirs = template_of(run, step.stage).get("env", [])
    replaced = {variable["name"] for variable in theirs}
    ours = [*_plain_variables(run, step, attempt), *_secret_variables(run, step.stage)]
    return [*(variable for variable in ours if variable["name"] not in replaced), *theirs]


def _plain_variables(run: Run, step: Step, attempt: int) -> list[Manifest]:
    workers = run.workers(step.stage)
    processes = _settings(run, step.stage).get("processesPerWorker", 1)
    config = stage_config(run, step, WORKSPACE, workers=workers, processes_per_worker=processes)
    values = {
        "SPPO_CONFIG": escape_for_kubelet(config),
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "passive",  # threads that spin while they wait use up the pod's share of time
        "HOME": HOME,
    }
    if step.stage is not Stage.PREPARE:
        values["HF_HUB_OFFLINE"] = "1"
    if step.stage is Stage.TRAIN and needs_service(run):
        values |= {
            "MASTER_ADDR": f"{run.job_name(step, attempt)}-0.{_service_name(run)}",
            "MASTER_PORT": str(MASTER_PORT),
        }
    # Without a limit the kubelet gives the node's allocatable cores.
    threads = {"resourceFieldRef": {"containerName": CONTAINER, "resource": "limits.cpu"}}
    variables: list[Manifest] = [{"name": name, "value": value} for name, value in values.items()]
    return [*variables, {"name": "OMP_NUM_THREADS", "valueFrom": threads}]


def _secret_variables(run: Run, stage: Stage) -> list[Manifest]:
    """Each key only where it is needed, and each judge's under a name of its own: one must not see the other's."""
    preference, second = run.spec["preference"], run.spec["evaluation"].get("preference", {})
    keys = {}
    if stage is Stage.PREPARE:
        keys["HF_TOKEN"] = run.spec["model"].get("tokenSecret")
    if stage in (Stage.SCORE, Stage.EVALUATE):
        keys["SPPO_JUDGE_KEY"] = preference.get("judge", {}).get("apiKeySecret")
    if stage is Stage.EVALUATE:
        keys["SPPO_EVALUATION_JUDGE_KEY"] = second.get("judge", {}).get("apiKeySecret")
    return [{"name": name, "valueFrom": {"secretKeyRef": dict(ref)}} for name, ref in keys.items() if ref]
