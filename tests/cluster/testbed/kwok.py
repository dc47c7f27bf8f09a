"""A pretended node: its pods are never started, and a Job's pod completes after a second. Real time, no containers."""

from __future__ import annotations

import json

from testbed import build
from testbed.box import NODE_ADDRESS
from testbed.node import Node

FAKE_NODE = "fake-1"
_KEY = "kwok.x-k8s.io/node"
_NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": FAKE_NODE, "annotations": {_KEY: "fake"}, "labels": {"type": "kwok"}},
    # Only pods that tolerate it come here.
    "spec": {"taints": [{"key": _KEY, "value": "fake", "effect": "NoSchedule"}]},
}
_STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-delete.yaml",
)


def start_kwok(node: Node) -> None:
    """Adds the node `fake-1` with taint `kwok.x-k8s.io/node=fake:NoSchedule`, unless it is there already."""
    if not node.running("kwok"):
        folder = build.kwok_module_dir() / "kustomize" / "stage"
        stages = [*(folder / name for name in _STAGES), build.MODULES / "kwok" / "complete.yaml"]
        node.spawn(
            "kwok", build.kwok_binary(), f"--kubeconfig={node.kubeconfig}", f"--manage-nodes-with-annotation-selector={_KEY}=fake",
            f"--node-ip={NODE_ADDRESS}", "--node-lease-duration-seconds=40", *(f"--config={stage}" for stage in stages),
        )  # fmt: skip
    node.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(_NODE))
    node.kubectl("wait", "--for=condition=Ready", f"node/{FAKE_NODE}", "--timeout=60s")


def stop_kwok(node: Node) -> None:
    """Removes the pretended node with its pods."""
    node.kubectl("delete", "node", FAKE_NODE, "--ignore-not-found")
    pods = ("pods", "--all-namespaces", f"--field-selector=spec.nodeName={FAKE_NODE}")
    node.kubectl("delete", *pods, "--force", "--grace-period=0")
    node.end("kwok")
