"""What the stages left in the workspace for people: samples, curves, models. Readers follow manifests only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sppo_operator.decide import Stage, Step
from sppo_operator.spec import Run


@dataclass(frozen=True)
class Results:
    """The folder of one run, `DIR/<namespace>/<name>`."""

    folder: Path

    @classmethod
    def of(cls, run: Run, workspace: Path) -> Results:
        return cls(workspace / run.namespace / run.name)

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def curves(self, iteration: int) -> dict[str, list[float | None]]:
        """Training's figures per optimizer step, empty before it has finished."""
        curves: dict[str, list[float | None]] = self._payload(Step(iteration, Stage.TRAIN), "curves.json") or {}
        return curves

    def samples(self, iteration: int) -> list[dict[str, Any]]:
        """Held-out prompts with the base's and this iteration's answer, empty before the evaluation."""
        samples: list[dict[str, Any]] = self._payload(Step(iteration, Stage.EVALUATE), "samples.json") or []
        return samples

    def policy(self, iteration: int) -> str | None:
        """The model folder that the iteration trained."""
        path = self._path(Step(iteration, Stage.TRAIN), "model/config.json")
        return None if path is None else str(path.parent)

    def versions(self) -> dict[str, Any]:
        """What prepare ran on: versions, host, threads."""
        stage = self._stage(Step(0, Stage.PREPARE))
        for file in sorted(stage.glob("a-*/provenance.json")):
            provenance: dict[str, Any] = json.loads(file.read_text("utf-8"))
            return provenance
        return {}

    def _payload(self, step: Step, name: str) -> Any:
        path = self._path(step, name)
        return None if path is None else json.loads(path.read_text("utf-8"))

    def _path(self, step: Step, name: str) -> Path | None:
        stage = self._stage(step)
        try:
            manifest = json.loads((stage / "manifest.json").read_text("utf-8"))
        except FileNotFoundError:
            return None
        paths = [stage / file["path"] for file in manifest["files"] if file["name"] == name]
        return paths[0] if paths else None

    def _stage(self, step: Step) -> Path:
        stage = step.stage.value
        return self.folder / (stage if step.stage is Stage.PREPARE else f"i{step.iteration}/{stage}")
