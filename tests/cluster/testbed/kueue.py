"""Kueue on the node: its own manifests and binary, in an image that was made here."""

from __future__ import annotations

import json
from typing import Any

import yaml

from testbed import build
from testbed.images import scratch_image
from testbed.node import Node
from testbed.shell import ClusterError, wait_until

_IMAGE = "localhost/kueue:v0.15.0"
_FLAVOR = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": "probe"}}


def install_kueue(node: Node) -> None:
    """Installs Kueue and waits until its webhooks answer; nothing if they do. Queues are left to the caller.

    Its webhooks are asked for every Job and pod and fail closed: while its pod is down, nothing can be created.
    """
    if _answers(node):
        return
    archive = node.state / "kueue.tar"
    node.import_image(scratch_image(_IMAGE, {"manager": build.kueue_binary()}, archive, ["/manager"]))
    archive.unlink()
    rendered = node.kubectl("kustomize", build.kueue_module_dir() / "config" / "default")
    # Server-side: the annotation of a client-side apply would be too long for these resource definitions.
    manifests = yaml.safe_dump_all(filter(None, map(_adapted, yaml.safe_load_all(rendered))))
    node.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifests)
    deployment = ("deployment/kueue-controller-manager", "-n", "kueue-system", "--timeout=180s")
    node.kubectl("wait", "--for=condition=Available", *deployment)
    # Available does not say it: the certificates are made after the start and reach the pod with a delay.
    wait_until(lambda: _answers(node), seconds=120, failure=lambda: "Kueue's webhooks do not answer")


def _adapted(manifest: dict[str, Any]) -> dict[str, Any] | None:
    if manifest["kind"] == "APIService":
        # Without it nothing is lost but a view. With it every deletion of a namespace waits for Kueue's own API server.
        return None
    if manifest["kind"] == "Deployment":
        container = manifest["spec"]["template"]["spec"]["containers"][0]
        container |= {"image": _IMAGE, "imagePullPolicy": "Never"}
        container["resources"] = {"requests": {"cpu": "50m", "memory": "128Mi"}}
    return manifest


def _answers(node: Node) -> bool:
    try:
        node.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(_FLAVOR))
    except ClusterError:
        return False
    return True
