"""A release of the chart, as somebody installs it who may not have a pod that Pod Security `restricted` warns about."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helm_chart import CHART, RELEASE, Object, Values, objects
from lab import Lab
from manifest_table import merged
from operators import Operator

TIMEOUT = "--timeout=180s"


@dataclass
class Release:
    helm: Path
    lab: Lab
    namespace: str
    images: Values
    home: Path
    """Where Helm keeps what it keeps."""
    complaints: list[str] = field(default_factory=list)
    """What Helm and the API server warned of."""

    @classmethod
    def of(cls, helm: Path, operator: Operator, namespace: str, home: Path) -> Release:
        """A release that does not exist yet, with the images that the cluster's nodes have."""
        images = {"image": _image(operator.image), "trainer": {"image": _image(operator.trainer)}}
        return cls(helm, operator.lab, namespace, images, home)

    def install(self, chart: Path = CHART, values: Values | None = None) -> None:
        self._values("install", RELEASE, str(chart), values=values)

    def upgrade(self, chart: Path = CHART, values: Values | None = None) -> None:
        self._values("upgrade", RELEASE, str(chart), "--reset-then-reuse-values", values=values)

    def rollback(self, revision: int) -> None:
        self._run("rollback", RELEASE, str(revision), "--wait", TIMEOUT)

    def uninstall(self) -> None:
        self._run("uninstall", RELEASE, "--wait", TIMEOUT)

    def exists(self) -> bool:
        return bool(json.loads(self._run("list", "--output=json")))

    def objects(self) -> list[Object]:
        """All that the release consists of."""
        return objects(self._run("get", "manifest", RELEASE))

    def _values(self, *arguments: str, values: Values | None) -> None:
        given: dict[str, Any] = merged(self.images, values or {})
        self._run(*arguments, "--values=-", "--wait", TIMEOUT, stdin=json.dumps(given))

    def _run(self, *arguments: str, stdin: str = "") -> str:
        command = [self.helm, *arguments, f"--namespace={self.namespace}", f"--kubeconfig={self.lab.kubeconfig}"]
        folders = {f"HELM_{kind}_HOME": str(self.home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        done = subprocess.run(
            command, input=stdin, env=os.environ | folders, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        self.complaints += [line for line in done.stderr.splitlines() if "warn" in line.lower()]
        return done.stdout


def _image(name: str) -> Values:
    repository, _, tag = name.rpartition(":")
    return {"repository": repository, "tag": tag}
