"""The operator as users install it, and what tests do to it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from lab import Lab

MANIFESTS = Path(__file__).parents[2] / "manifests"
NAMESPACE = "sppo-system"
NAME = "sppo-operator"
LEASE = "sppo-operator"
SELECTOR = "app.kubernetes.io/name=sppo-operator"


class Operator:
    """The Deployment of `kubectl apply -k` of a folder, with images that this machine has."""

    def __init__(
        self, lab: Lab, image: str, trainer: str, namespace: str = NAMESPACE, manifests: Path = MANIFESTS
    ) -> None:
        """`namespace` is the one that the manifests put it into."""
        self.lab = lab
        self.image = image
        self.trainer = trainer
        self.namespace = namespace
        self.manifests = manifests

    def install(self) -> None:
        rendered = self.lab.kubectl("kustomize", str(self.manifests))
        manifests = [self._adapted(manifest) for manifest in yaml.safe_load_all(rendered)]
        self.lab.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump_all(manifests))
        self.lab.kubectl("wait", "--for=condition=Established", "crd/spporuns.sppo.dev", "--timeout=30s")
        self.until_ready(2)
        self.leader()

    def uninstall(self) -> None:
        """Take away all that was installed, and with the resource all runs."""
        self.lab.kubectl("delete", "-k", str(self.manifests), "--ignore-not-found", "--timeout=120s")

    def remove(self) -> None:
        self.lab.kubectl("delete", "namespace", self.namespace, "--wait=true", "--timeout=120s")

    def scale(self, replicas: int) -> None:
        self.lab.patch("deployments", self.namespace, NAME, {"spec": {"replicas": replicas}})
        self.until_ready(replicas)
        if replicas == 0:
            self.lab.until("pods", self.namespace, lambda pods: not pods, selector=SELECTOR, seconds=60)

    def configure(self, **environment: str) -> None:
        """Change the operator's environment, and wait until its pods have it: what an upgrade does."""
        deployment = self.lab.get("deployments", self.namespace, NAME)
        assert deployment is not None
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        kept = [item for item in container["env"] if item["name"] not in environment]
        container["env"] = kept + [{"name": name, "value": value} for name, value in environment.items()]
        self.lab.patch("deployments", self.namespace, NAME, {"spec": deployment["spec"]})
        self.lab.kubectl("rollout", "status", f"deployment/{NAME}", "-n", self.namespace, "--timeout=120s")

    def until_ready(self, replicas: int) -> None:
        def ready(found: dict[str, Any]) -> bool:
            status = found[NAME].get("status", {})
            counts = [status.get(name, 0) for name in ("replicas", "readyReplicas", "updatedReplicas")]
            return counts == [replicas] * 3 and status["observedGeneration"] == found[NAME]["metadata"]["generation"]

        self.lab.until("deployments", self.namespace, ready, seconds=120)

    def leader(self) -> str:
        """The pod that holds the lease, once one does."""

        def holder(leases: dict[str, Any]) -> str:
            name = leases[LEASE]["spec"].get("holderIdentity") if LEASE in leases else None
            return name if name in {pod["metadata"]["name"] for pod in self.lab.list("pods", self.namespace)} else ""

        found: str = self.lab.until("leases", self.namespace, holder, seconds=60)
        return found

    def pods(self) -> list[str]:
        return sorted(pod["metadata"]["name"] for pod in self.lab.list("pods", self.namespace, SELECTOR))

    def kill(self, pod: str) -> None:
        """SIGKILL to the operator in this pod: no time to release the lease or to finish a pass."""
        self.signal(pod, signal.SIGKILL)

    def signal(self, pod: str, number: signal.Signals) -> None:
        for process in processes("sppo_operator.main", pod):
            os.kill(process, number)

    def restarts(self, pod: str) -> int:
        """How often the kubelet has started the operator in this pod again."""
        found = self.lab.get("pods", self.namespace, pod)
        return _restarts(found) if found else 0

    def until_restarted(self, pod: str, restarts: int) -> None:
        """The pod is ready after so many restarts."""
        self.lab.until(
            "pods", self.namespace, lambda pods: _restarts(pods[pod]) >= restarts and _is_ready(pods[pod]), seconds=120
        )

    def renew(self) -> None:
        """New pods in place of those that were killed: the kubelet would let them wait longer after every kill."""
        if any(map(self.restarts, self.pods())):
            self.scale(0)
            self.scale(2)

    def memory_peak_bytes(self) -> int:
        """The most that any operator's process has used so far."""
        peaks = []
        for process in processes("sppo_operator.main", NAME):
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
            peaks += [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
        return max(peaks)

    def memory_request_mib(self) -> int:
        """What the Deployment requests for a pod."""
        deployment = self.lab.get("deployments", self.namespace, NAME)
        assert deployment is not None
        requested = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["memory"]
        return int(requested.removesuffix("Mi"))

    def cpu_seconds(self) -> float:
        """Processor time of all operators' processes that live."""
        ticks = 0
        for process in processes("sppo_operator.main", NAME):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
        return ticks / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        return "\n".join(
            self.lab.log(self.namespace, pod["metadata"]["name"]) for pod in self.lab.list("pods", self.namespace)
        )

    def forbidden(self) -> list[str]:
        """What the operators' logs tell of missing rights."""
        return [line for line in self.log().splitlines() if "orbidden" in line]

    def _adapted(self, manifest: dict[str, Any]) -> dict[str, Any]:
        if manifest["kind"] == "Deployment":
            container = manifest["spec"]["template"]["spec"]["containers"][0]
            container["image"] = self.image
            for variable in container["env"]:
                if variable["name"] == "SPPO_TRAINER_IMAGE":
                    variable["value"] = self.trainer
        return manifest


def _restarts(pod: dict[str, Any]) -> int:
    return sum(status["restartCount"] for status in pod["status"].get("containerStatuses", ()))


def _is_ready(pod: dict[str, Any]) -> bool:
    return all(status["ready"] for status in pod["status"].get("containerStatuses", ()))


def processes(module: str, host: str) -> Iterable[int]:
    """Processes of this machine that run a Python module in a container whose host name begins so."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if module.encode() not in (folder / "cmdline").read_bytes().split(b"\0"):
                continue
            environment = (folder / "environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        if any(value.startswith(f"HOSTNAME={host}".encode()) for value in environment):
            yield int(folder.name)
