"""Paths of the API server's resources. An empty namespace means all of them, where that makes sense."""

from __future__ import annotations

GROUP, VERSION, PLURAL = "sppo.dev", "v1alpha1", "spporuns"

# What the Job controller writes on a Job's pods.
JOB_LABEL = "batch.kubernetes.io/job-name"
JOB_UID_LABEL = "batch.kubernetes.io/controller-uid"
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"


def runs(namespace: str = "") -> str:
    return _in(f"/apis/{GROUP}/{VERSION}", namespace, PLURAL)


def run(namespace: str, name: str) -> str:
    return f"{runs(namespace)}/{name}"


def run_status(namespace: str, name: str) -> str:
    return f"{run(namespace, name)}/status"


def jobs(namespace: str = "") -> str:
    return _in("/apis/batch/v1", namespace, "jobs")


def job(namespace: str, name: str) -> str:
    return f"{jobs(namespace)}/{name}"


def pods(namespace: str = "") -> str:
    return _in("/api/v1", namespace, "pods")


def pod_log(namespace: str, name: str) -> str:
    return f"{pods(namespace)}/{name}/log"


def services(namespace: str) -> str:
    return _in("/api/v1", namespace, "services")


def events(namespace: str) -> str:
    return _in("/api/v1", namespace, "events")


def leases(namespace: str) -> str:
    return _in("/apis/coordination.k8s.io/v1", namespace, "leases")


def lease(namespace: str, name: str) -> str:
    return f"{leases(namespace)}/{name}"


def workloads(namespace: str) -> str:
    """Kueue's Workloads, in the version that all its releases since 0.2 serve."""
    return _in("/apis/kueue.x-k8s.io/v1beta1", namespace, "workloads")


def resource_of(path: str) -> str:
    """The resource of a path, as RBAC names it: `pods/log` of /api/v1/namespaces/team/pods/x/log."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]  # group and version
    if len(parts) > 2 and parts[0] == "namespaces":
        parts = parts[2:]
    resource, *rest = parts
    return f"{resource}/{rest[1]}" if len(rest) > 1 else resource


def _in(root: str, namespace: str, plural: str) -> str:
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"
