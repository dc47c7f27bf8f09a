"""What the stages left in the workspace for people: samples, curves, models. Readers follow manifests only."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sppo_operator.decide import Stage, Step
from sppo_operator.errors import DamagedError
from sppo_operator.spec import Run


@dataclass(frozen=True)
class Results:
    """The folder of one run, `DIR/<namespace>/<name>`. Every method raises DamagedError at a file that is not whole."""

    folder: Path

    @classmethod
    def of(cls, run: Run, workspace: Path) -> Results:
        return cls(workspace / run.namespace / run.name)

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def finished(self, step: Step) -> bool:
        """Whether the step's artifact is there."""
        return (self._stage(step) / "manifest.json").exists()

    def curves(self, iteration: int) -> dict[str, list[float | None]]:
        """Training's figures per optimizer step, None where one was not finite; empty before it has finished."""
        path = self._path(Step(iteration, Stage.TRAIN), "curves.json")
        curves = {} if path is None else _read(path)
        if not (isinstance(curves, dict) and all(map(_is_curve, curves.values()))):
            raise _damaged(path, "no lists of numbers")
        return curves

    def samples(self, iteration: int) -> list[dict[str, Any]]:
        """Held-out prompts with the base's and this iteration's answer, empty before the evaluation."""
        path = self._path(Step(iteration, Stage.EVALUATE), "samples.json")
        samples = [] if path is None else _read(path)
        if not (isinstance(samples, list) and all(map(_is_sample, samples))):
            raise _damaged(path, "no list of answers")
        return samples

    def policy(self, iteration: int) -> str | None:
        """The model folder that the iteration trained."""
        path = self._path(Step(iteration, Stage.TRAIN), "model/config.json")
        return None if path is None else str(path.parent)

    def versions(self) -> dict[str, Any]:
        """What prepare ran on: versions, host, threads."""
        path = next(iter(sorted(self._stage(Step(0, Stage.PREPARE)).glob("a-*/provenance.json"))), None)
        provenance = {} if path is None else _read(path)
        if not isinstance(provenance, dict):
            raise _damaged(path, "no object")
        return provenance

    def _path(self, step: Step, name: str) -> Path | None:
        manifest = self._stage(step) / "manifest.json"
        if not manifest.exists():
            return None
        data = _read(manifest)
        try:
            paths = [manifest.parent / file["path"] for file in data["files"] if file["name"] == name]
        except (KeyError, TypeError) as error:
            raise _damaged(manifest, "no list of files") from error
        return paths[0] if paths else None

    def _stage(self, step: Step) -> Path:
        stage = step.stage.value
        return self.folder / (stage if step.stage is Stage.PREPARE else f"i{step.iteration}/{stage}")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"), parse_constant=lambda _: None)  # NaN and the infinities
    except OSError as error:
        raise _damaged(path, str(error.strerror)) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "no whole JSON") from error


def _damaged(path: Path | None, why: str) -> DamagedError:
    return DamagedError(
        f"{path} is damaged ({why}): restore it, or remove the folder of its stage and DIR/run.yaml and run again"
    )


def _is_curve(values: Any) -> bool:
    return isinstance(values, list) and all(value is None or _is_number(value) for value in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_sample(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and all(isinstance(row.get(key), str) for key in ("prompt", "before", "after"))
        and all(row.get(key) is None or _is_number(row[key]) for key in ("scoreBefore", "scoreAfter"))
    )
