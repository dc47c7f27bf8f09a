"""A namespace of one test, with a workspace that the test can look into."""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import Lab

CLAIM = "workspace"
SIZE = {"storage": "100Gi"}
OWNER = "test.sppo.dev/namespace"
"""The label of volumes, which belong to no namespace."""


@dataclass(frozen=True)
class Namespace:
    lab: Lab
    name: str
    workspace: Path
    """The folder behind the claim; pods mount it at /workspace."""

    @classmethod
    def create(cls, lab: Lab, title: str, workspace: Path | None = None) -> Namespace:
        name = f"{re.sub('[^a-z0-9]+', '-', title.lower())[:40].strip('-')}-{secrets.token_hex(3)}"
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        lab.create("namespaces", "", {"metadata": {"name": name, "labels": restricted}})
        folder = workspace or Path(tempfile.mkdtemp(prefix="sppo-workspace-"))
        folder.chmod(0o777)  # a hostPath volume keeps its owner, and pods run as user 1000
        space = cls(lab, name, folder)
        space.claim(CLAIM, folder)
        return space

    def volume(self, name: str, folder: Path) -> None:
        """A volume for one claim, which is a folder of this machine."""
        volume = {
            "capacity": SIZE,
            "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder), "type": "Directory"},
            "claimRef": {"namespace": self.name, "name": name},
        }
        metadata = {"name": f"{self.name}-{name}", "labels": {OWNER: self.name}}
        self.lab.create("persistentvolumes", "", {"metadata": metadata, "spec": volume})

    def claim(self, name: str, folder: Path) -> None:
        """A claim that is bound to a folder of this machine."""
        self.volume(name, folder)
        claim = {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "volumeName": f"{self.name}-{name}",
            "resources": {"requests": SIZE},
        }
        self.lab.create("persistentvolumeclaims", self.name, {"metadata": {"name": name}, "spec": claim})

    def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create an SPPORun here, in this namespace's workspace."""
        spec = {**manifest["spec"], "workspace": {"claimName": CLAIM}}
        return self.lab.create("spporuns", self.name, {**manifest, "spec": spec})

    def patch(self, run: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        return self.lab.patch("spporuns", self.name, run, {"spec": spec})

    def folder(self, run: str) -> Path:
        return self.workspace / self.name / run

    def remove(self) -> None:
        self.end_runs()
        self.discard()

    def end_runs(self) -> None:
        # The runs first: in a namespace that is going, the Job controller tries for minutes to replace their pods.
        for run in self.lab.list("spporuns", self.name):
            self.lab.delete("spporuns", self.name, run["metadata"]["name"])
        self.lab.until("pods", self.name, lambda pods: not pods, selector="sppo.dev/run", seconds=120)

    def discard(self) -> None:
        """Remove the namespace, in which no run is left."""
        self.lab.delete("namespaces", "", self.name)  # which takes ten seconds, and nobody waits for it
        for volume in self.lab.list("persistentvolumes", selector=f"{OWNER}={self.name}"):
            self.lab.delete("persistentvolumes", "", volume["metadata"]["name"])
        if self.workspace.name.startswith("sppo-workspace-"):
            shutil.rmtree(self.workspace)


def lend(folder: Path) -> None:
    """Let pods read all of a folder that this machine's root filled: safetensors makes files for their owner only."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))
