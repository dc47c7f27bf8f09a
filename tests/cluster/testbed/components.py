"""The command lines of the node's components."""

from __future__ import annotations

from pathlib import Path

from testbed.box import NODE_ADDRESS, POD_RANGE, SERVICE_RANGE

_ETCD = "http://127.0.0.1:2379"
_MANY_CALLS = ["--kube-api-qps=1000", "--kube-api-burst=2000"]  # 20 a second, the default, make hundreds of Jobs wait

Command = list[str | Path]


def commands(state: Path, workers: int) -> dict[str, Command]:
    """Every component by name."""
    found = _control_plane(state)
    for worker in range(1, workers + 1):
        found |= _worker(state, worker)
    return found


def _control_plane(state: Path) -> dict[str, Command]:
    kube, keys = state / "bin" / "kube", state / "keys"
    proxy = [
        f"--kubeconfig={keys}/proxy.kubeconfig", f"--cluster-cidr={POD_RANGE}",
        "--hostname-override=node-1", "--proxy-mode=iptables",
        "--conntrack-max-per-core=0",  # that limit can be set for the whole machine only
    ]  # fmt: skip
    etcd = [f"--listen-client-urls={_ETCD}", f"--advertise-client-urls={_ETCD}", "--unsafe-no-fsync"]
    return {
        "etcd": [kube, "etcd", f"--data-dir={state}/etcd", *etcd],
        "apiserver": _apiserver(state),
        "controller-manager": [
            kube, "kube-controller-manager", *_client(keys / "controller-manager.kubeconfig"), "--leader-elect=false",
            f"--service-account-private-key-file={keys}/sa.key", f"--root-ca-file={keys}/ca.crt",
            "--use-service-account-credentials", *_MANY_CALLS,
            f"--flex-volume-plugin-dir={state}/plugins",  # made below /usr/libexec otherwise
        ],
        "scheduler": [kube, "kube-scheduler", *_client(keys / "scheduler.kubeconfig"), "--leader-elect=false", *_MANY_CALLS],
        "proxy": [kube, "kube-proxy", *proxy],
        "coredns": [kube, "coredns", "-conf", state / "etc" / "Corefile"],
    }  # fmt: skip


def _apiserver(state: Path) -> Command:
    keys = state / "keys"
    return [
        state / "bin" / "kube", "kube-apiserver", f"--etcd-servers={_ETCD}", f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--advertise-address={NODE_ADDRESS}", "--allow-privileged", "--authorization-mode=Node,RBAC",
        # What hardened clusters add: a kubelet writes only about its own node, and who sets blockOwnerDeletion needs the
        # right to change the owner's finalizers.
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
        f"--tls-cert-file={keys}/api.crt", f"--tls-private-key-file={keys}/api.key",
        f"--client-ca-file={keys}/ca.crt", f"--token-auth-file={keys}/tokens.csv",
        f"--service-account-key-file={keys}/sa.key", f"--service-account-signing-key-file={keys}/sa.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--kubelet-preferred-address-types=InternalIP",  # the node's name is in no DNS
        f"--audit-policy-file={state}/etc/audit.json", f"--audit-log-path={state}/logs/audit.log",
        "--audit-log-maxsize=2048",
    ]  # fmt: skip


def _worker(state: Path, worker: int) -> dict[str, Command]:
    folder = state / f"node-{worker}"
    return {
        f"containerd-{worker}": ["containerd", "--config", state / "etc" / f"containerd-{worker}.toml"],
        f"kubelet-{worker}": [
            state / "bin" / "kube", "kubelet", f"--config={state}/etc/kubelet-{worker}.json",
            f"--kubeconfig={state}/keys/kubelet-{worker}.kubeconfig", f"--hostname-override=node-{worker}",
            f"--root-dir={folder}/kubelet", f"--cert-dir={folder}/keys", f"--node-ip={NODE_ADDRESS}",
        ],
    }  # fmt: skip


def _client(kubeconfig: Path) -> list[str]:
    kinds = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    return [f"--{kind}={kubeconfig}" for kind in kinds]
