"""Configuration files of the components, with the reason for each setting that is not obvious."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from testbed.box import NODE_ADDRESS, POD_RANGE
from testbed.packages import plugin_folder

PAUSE_IMAGE = "localhost/pause:1"

# What the operator's tests count: who wrote which Job, pod and run, and when, to the microsecond, and all that the operator
# asks for. The content is kept only where it matters which of several updates made a Job complete, or who led.
_OPERATOR = "system:serviceaccount:sppo-system:sppo-operator"
_AUDITED = [
    {"group": "batch", "resources": ["jobs", "jobs/status"]},
    {"group": "", "resources": ["pods", "pods/*"]},
    {"group": "sppo.dev", "resources": ["*", "*/*"]},
]
AUDIT_POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {
            "level": "RequestResponse",
            "verbs": ["update", "patch"],
            "resources": [{"group": "batch", "resources": ["jobs/status"]}],
        },
        {
            "level": "RequestResponse",
            "verbs": ["create", "update"],
            "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}],
            "users": [_OPERATOR],
        },
        {"level": "Metadata", "users": [_OPERATOR]},
        {"level": "Metadata", "resources": _AUDITED},
        {"level": "None"},
    ],
}


def socket(state: Path, worker: int) -> Path:
    return state / "run" / f"containerd-{worker}.sock"


def containerd(state: Path, worker: int) -> str:
    """Version 2 of the format, which containerd 1.6 (Debian 12) and 2.x both read."""
    root = state / f"node-{worker}" / "containerd"
    return f"""\
version = 2
root = "{root}"
state = "{state}/run/containerd-{worker}"
[grpc]
  address = "{socket(state, worker)}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Network namespaces of pods would be mounted in /run/netns otherwise.
  netns_mounts_under_state_dir = true
  # Root in a container often lacks CAP_SYS_RESOURCE and cannot lower the score, and runc then ends with
  # "can't get final child's PID from pipe: EOF".
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugin_folder()}"
    conf_dir = "{state}/etc/network"
"""


def pod_network(state: Path) -> dict[str, Any]:
    """A bridge. No masquerade: pods reach each other and this machine, and nothing beyond it."""
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": POD_RANGE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(state / "run" / "addresses"),
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}


def kubelet(state: Path, worker: int, cgroup: str) -> dict[str, Any]:
    folder = state / f"node-{worker}"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # Who may ask is decided at the API server; only this machine reaches the kubelet.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "port": 10240 + 10 * worker,
        "healthzPort": 10238 + 10 * worker,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": "",  # this machine's domains are no part of the cluster
        "containerRuntimeEndpoint": f"unix://{socket(state, worker)}",
        "podLogsDir": str(folder / "pods"),
        "volumePluginDir": str(folder / "plugins"),
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,  # there is no registry from which a removed image would come back
        "serializeImagePulls": False,
        "maxPods": 250,
    }


def corefile(kubeconfig: Path) -> str:
    """Other names do not exist. Without the last block they would be refused, which a client takes for a passing fault."""
    return f""".:53 {{
  bind {NODE_ADDRESS}
  errors
  ready {NODE_ADDRESS}:8181
  cache 5
  kubernetes cluster.local {{
    kubeconfig {kubeconfig} sppo-cluster
  }}
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"""
