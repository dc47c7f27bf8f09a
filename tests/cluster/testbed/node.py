"""One real Kubernetes node: its components, and what the tests do with them."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed import build, config, keys, packages
from testbed.box import NODE_ADDRESS, Box
from testbed.components import Command, commands
from testbed.images import scratch_image
from testbed.shell import ClusterError, run, succeeds, wait_until


def default_state() -> Path:
    return Path(os.environ.get("SPPO_CLUSTER_STATE") or "/var/lib/sppo-cluster")


class Node:
    """A control plane and `workers` kubelets on one machine; everything on disk is below `state`.

    Components, as `restart` and `kill` name them: etcd, apiserver, controller-manager, scheduler, proxy, coredns, and for each
    worker n containerd-n and kubelet-n. The workers' nodes are called node-1, node-2 ...
    """

    def __init__(self, state: Path | None = None, *, workers: int | None = None) -> None:
        """Without `workers`, as many as the node below `state` was started with, or one."""
        self.state = (state or default_state()).resolve()
        self.workers = workers or len(list(self.state.glob("etc/kubelet-*.json"))) or 1
        self.kubeconfig = self.state / "kubeconfig"
        self.audit_log = self.state / "logs" / "audit.log"
        self.name = "node-1"
        self._box = Box(self.state)
        self._kube = self.state / "bin" / "kube"
        self._etc = self.state / "etc"

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Boots the node, or returns at once when it is healthy. What is left of one that is not is removed first."""
        with self._lock():
            if self.healthy():
                return
            self._box.stop()
            packages.install()
            self._box.claim()
            self._prepare()
            self._box.start()
            self._boot()

    def stop(self) -> list[str]:
        """Ends and removes everything; says what there was."""
        with self._lock():
            return self._box.stop()

    def healthy(self) -> bool:
        return all(self.status().values()) and self._api_ready() and self._nodes_ready()

    def status(self) -> dict[str, bool]:
        """Whether each component runs."""
        return {name: self._box.alive(name) for name in self._commands()}

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Two commands must not boot at once. The folder above is locked, since a lock file would have to stay behind."""
        self.state.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.state.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    # -- use -----------------------------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """Standard output of kubectl; raises ClusterError if it fails."""
        return run(self._kube, "kubectl", *arguments, stdin=stdin, env=self._client_env())

    def ctr(self, worker: int = 1) -> list[str]:
        """containerd's own command for a worker's images, to be completed: `[*node.ctr(), "image", "ls"]`."""
        return ["ctr", "--address", str(config.socket(self.state, worker)), "--namespace", "k8s.io"]

    def import_image(self, archive: Path) -> None:
        """Takes the archive of an image (docker-archive or OCI), under the names in it, into every worker."""
        for worker in self._workers():
            run(*self.ctr(worker), "image", "import", archive)

    def images(self) -> list[str]:
        """Names of the images that pods can use, with imagePullPolicy Never or IfNotPresent."""
        listed = run(*self.ctr(), "image", "ls", "-q").split()
        return [name for name in listed if not name.startswith("sha256:")]

    def pretend_gpus(self, count: int, *, node: str = "node-1") -> None:
        """Gives a node a capacity of nvidia.com/gpu, enough to see where pods are placed."""
        paths = (f"/status/{kind}/nvidia.com~1gpu" for kind in ("capacity", "allocatable"))
        patch = json.dumps([{"op": "add", "path": path, "value": str(count)} for path in paths])
        self.kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", patch)

    def kill(self, component: str) -> None:
        """SIGKILL to one component; what it started (containers, say) goes on."""
        self._box.kill(self._known(component))

    def restart(self, component: str) -> None:
        """SIGKILL, a new start, and a wait until the component answers."""
        self.kill(component)
        self._spawn(component)
        self._wait_for(component)

    def spawn(self, name: str, *command: str | Path) -> None:
        """Starts a further process on the node, for instance a controller without a pod; `stop` ends it."""
        if name in self._commands():
            raise ClusterError(f"{name} is a component of the node: choose another name")
        self._box.spawn(name, *command)

    def end(self, name: str) -> None:
        """SIGKILL to a process that `spawn` started."""
        self._box.kill(name)

    def running(self, name: str) -> bool:
        return self._box.alive(name)

    # -- booting -------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Files that the components read."""
        for folder in ("bin", "etc/network", "logs", "run"):
            (self.state / folder).mkdir(parents=True, exist_ok=True)
        _place(build.kube_binary(), self._kube)
        _place(build.pause_binary(), self.state / "bin" / "pause")
        script = self.state / "bin" / "kubectl"
        script.write_text(f'#!/bin/sh\nexec {self._kube} kubectl "$@"\n')
        script.chmod(0o755)
        pause = {"pause": self.state / "bin" / "pause"}
        scratch_image(config.PAUSE_IMAGE, pause, self._etc / "pause.tar", ["/pause"])
        self._write_keys()
        self._write("audit.json", config.AUDIT_POLICY)
        self._write("network/pods.conflist", config.pod_network(self.state))
        (self._etc / "Corefile").write_text(config.corefile(self.kubeconfig))
        for worker in self._workers():
            runtime = config.containerd(self.state, worker)
            (self._etc / f"containerd-{worker}.toml").write_text(runtime)
            self._write(
                f"kubelet-{worker}.json", config.kubelet(self.state, worker, self._box.cgroup(f"node-{worker}"))
            )

    def _write_keys(self) -> None:
        folder = self.state / "keys"
        keys.make_certificates(folder)
        users = keys.Users(folder)
        users.add(self.kubeconfig, "admin", "system:masters")
        for component in ("controller-manager", "scheduler", "proxy"):
            users.add(folder / f"{component}.kubeconfig", f"system:kube-{component}")
        for worker in self._workers():
            users.add(folder / f"kubelet-{worker}.kubeconfig", f"system:node:node-{worker}", "system:nodes")

    def _boot(self) -> None:
        for worker in self._workers():
            self._spawn(f"containerd-{worker}")
        self._spawn("etcd")
        self._spawn("apiserver")
        for worker in self._workers():
            self._wait_for(f"containerd-{worker}")  # the kubelet ends when the socket is not there yet
            run(*self.ctr(worker), "image", "import", self._etc / "pause.tar")
        self._wait_for("apiserver")
        for component in ("controller-manager", "scheduler", "proxy", "coredns"):
            self._spawn(component)
        for worker in self._workers():
            self._spawn(f"kubelet-{worker}")
        self._wait_until(self._nodes_ready, "kubelet-1", seconds=60)
        self._wait_for("coredns")
        account = ("get", "serviceaccount", "default")  # without it the API server refuses pods
        self._wait_until(lambda: self._asks(*account), "controller-manager", seconds=30)

    def _spawn(self, component: str) -> None:
        self._box.spawn(component, *self._commands()[component])

    def _wait_for(self, component: str) -> None:
        """Until the component answers."""
        kind, _, worker = component.rpartition("-")
        if component == "apiserver":
            self._wait_until(self._api_ready, component, seconds=60)
        elif component == "coredns":
            self._wait_until(_dns_ready, component, seconds=30)
        elif kind == "containerd":
            self._wait_until(lambda: succeeds(*self.ctr(int(worker)), "version"), component, seconds=30)
        elif kind == "kubelet":  # through the API server; the node's own condition stays true while its kubelet is away
            health = f"/api/v1/nodes/node-{worker}/proxy/healthz"
            self._wait_until(lambda: self._asks("get", "--raw", health), component, seconds=60)
        else:
            self._wait_until(lambda: True, component, seconds=10)

    def _commands(self) -> dict[str, Command]:
        return commands(self.state, self.workers)

    # -- questions -----------------------------------------------------------------------------------------------------

    def _wait_until(self, condition: Callable[[], bool], component: str, *, seconds: float) -> None:
        def failure() -> str:
            log = f"{self.state}/logs/{component}.log"
            return f"{component} does not answer; the end of {log}: {self._box.log_tail(component)}"

        def answers() -> bool:
            if not self._box.alive(component):
                raise ClusterError(failure())
            return condition()

        wait_until(answers, seconds=seconds, failure=failure)

    def _api_ready(self) -> bool:
        return self._asks("get", "--raw", "/readyz")

    def _nodes_ready(self) -> bool:
        names = [f"node/node-{worker}" for worker in self._workers()]
        return self._asks("wait", "--for=condition=Ready", "--timeout=0", *names)

    def _asks(self, *arguments: str) -> bool:
        if not self._kube.exists():
            return False
        return succeeds(self._kube, "kubectl", "--request-timeout=5s", *arguments, env=self._client_env())

    def _client_env(self) -> dict[str, str]:
        """Nothing of the caller's: a proxy or another KUBECONFIG would lead elsewhere."""
        return {"PATH": packages.SYSTEM_PATH, "HOME": str(self.state), "KUBECONFIG": str(self.kubeconfig)}

    def _workers(self) -> range:
        return range(1, self.workers + 1)

    def _known(self, component: str) -> str:
        if component not in self._commands():
            raise ClusterError(f"{component} is no component of the node: choose one of {', '.join(self._commands())}")
        return component

    def _write(self, name: str, content: object) -> None:
        (self._etc / name).write_text(json.dumps(content, indent=2) + "\n")


def _dns_ready() -> bool:
    connection = http.client.HTTPConnection(NODE_ADDRESS, 8181, timeout=2)  # urllib would ask the user's proxy
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    return False


def _place(binary: Path, target: Path) -> None:
    """A name of its own for the node's binary: another checkout may remove it from the cache while the node runs."""
    try:
        target.hardlink_to(binary)
    except OSError:  # the cache lies on another file system
        shutil.copy2(binary, target)
