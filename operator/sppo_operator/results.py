"""What the stages left in the workspace for people: samples, curves, models. Readers follow manifests only."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sppo_operator.decide import Stage, Step
from sppo_operator.errors import DamagedError
from sppo_operator.spec import Run

Curves = Mapping[str, Sequence[float | None]]
Sample = Mapping[str, Any]
LATEST_SECONDS = 2.0**36
"""Since 1970, in the year 4147: so long after such a start is still a time that can be written."""
Of = TypeVar("Of")
Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a finished step's artifact says about itself."""

    metrics: Mapping[str, float | str] = field(default_factory=dict)
    content_digest: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Of the attempt that made it: host, versions, when it started and how many seconds it took."""


class Material(Protocol):
    """What a report shows beyond the run's status."""

    @property
    def missing(self) -> Sequence[str]:
        """What cannot be shown and why, in sentences for the user."""

    def curves(self, iteration: int) -> Curves:
        """Training's figures per optimizer step, None where one was not finite; empty before it has finished."""

    def samples(self, iteration: int) -> Sequence[Sample]:
        """Held-out prompts with the answers before and after, empty before the evaluation."""

    def made(self, step: Step) -> Made | None:
        """None before the step has finished."""


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
        return self._manifest(step) is not None

    def curves(self, iteration: int) -> Curves:
        path = self._path(Step(iteration, Stage.TRAIN), "curves.json")
        return {} if path is None else _shaped(curves_in(_read(path)), path, "no lists of numbers")

    def samples(self, iteration: int) -> Sequence[Sample]:
        path = self._path(Step(iteration, Stage.EVALUATE), "samples.json")
        return [] if path is None else _shaped(samples_in(_read(path)), path, "no list of answers")

    def made(self, step: Step) -> Made | None:
        """Without its provenance."""
        path = self._manifest(step)
        if path is None:
            return None
        manifest = _shaped(object_in(_read(path)), path, "no object")
        return _shaped(made_in({**manifest, "provenance": {}}), path, "no digest and figures")

    def provenance(self, step: Step) -> Mapping[str, Any]:
        """Empty where no attempt left notes: no manifest names them, and images of users may write none."""
        # A late attempt may have left its folder beside the one that counts, and a stage of chunks has no files.
        notes = sorted((self.folder / folder_of(step)).glob("a-*/provenance.json"))
        return _shaped(notes_in(_read(notes[0])), notes[0], "no notes of an attempt") if notes else {}

    def policy(self, iteration: int) -> Path | None:
        """The model folder that the iteration trained."""
        path = self._path(Step(iteration, Stage.TRAIN), "model/config.json")
        return None if path is None else path.parent

    def _path(self, step: Step, name: str) -> Path | None:
        manifest = self._manifest(step)
        if manifest is None:
            return None
        data = _read(manifest)
        try:
            paths = [manifest.parent / file["path"] for file in data["files"] if file["name"] == name]
        except (KeyError, TypeError) as error:
            raise _damaged(manifest, "no list of files") from error
        return paths[0] if paths else None

    def _manifest(self, step: Step) -> Path | None:
        """None before the step has finished."""
        path = self.folder / folder_of(step) / "manifest.json"
        try:
            return path if path.exists() else None
        except OSError as error:  # such as a folder that may not be entered
            raise _damaged(path, str(error.strerror)) from error


class WholeParts:
    """Implements Material: a file that is not whole costs its own part, and `missing` and `say` name it."""

    def __init__(self, results: Results, say: Callable[[str], object]) -> None:
        self.missing: list[str] = []
        self._results, self._say = results, say

    def curves(self, iteration: int) -> Curves:
        return self._part(self._results.curves, iteration, {})

    def samples(self, iteration: int) -> Sequence[Sample]:
        return self._part(self._results.samples, iteration, [])

    def made(self, step: Step) -> Made | None:
        made = self._part(self._results.made, step, None)
        return made and replace(made, provenance=self._part(self._results.provenance, step, {}))

    def _part(self, read: Callable[[Of], Found], of: Of, without: Found) -> Found:
        try:
            return read(of)
        except DamagedError as error:
            sentence = f"{error}."
            if sentence not in self.missing:
                self.missing.append(sentence)
                self._say(f"warning: not in the report: {sentence}")
            return without


def folder_of(step: Step) -> str:
    """Where a step's artifact lies, relative to the run's folder."""
    return step.stage.value if step.stage is Stage.PREPARE else f"i{step.iteration}/{step.stage.value}"


def curves_in(data: Any) -> Curves | None:
    """Checked curves, None if it is something else; so are those below."""
    is_whole = isinstance(data, dict) and all(
        isinstance(values, list) and all(value is None or _is_number(value) for value in values)
        for values in data.values()
    )
    return data if is_whole else None


def by_win_rate(samples: Sequence[Sample]) -> list[Sample]:
    """Those that the new policy won most come first; by rank, or the win rate from which it comes."""
    return sorted(samples, key=lambda sample: (float(sample.get("rank") or 0), -win_rate_of(sample)))


def win_rate_of(sample: Sample) -> float:
    rate = sample.get("winRate")
    return 0.5 if rate is None else float(rate)


def samples_in(data: Any) -> list[Sample] | None:
    return data if isinstance(data, list) and all(map(_is_sample, data)) else None


def object_in(data: Any) -> dict[str, Any] | None:
    return data if isinstance(data, dict) else None


def notes_in(data: Any) -> dict[str, Any] | None:
    """An attempt's notes about itself."""
    if not isinstance(data, dict):
        return None
    times = [data[key] for key in ("started", "seconds") if data.get(key) is not None]
    return data if all(_is_number(time) and 0 <= time < LATEST_SECONDS for time in times) else None


def made_in(data: Any) -> Made | None:
    if not isinstance(data, dict):
        return None
    metrics, digest, provenance = data.get("result"), data.get("contentDigest"), notes_in(data.get("provenance"))
    if not (isinstance(metrics, dict) and isinstance(digest, str)) or provenance is None:
        return None
    figures = {name: value for name, value in metrics.items() if isinstance(value, str) or _is_number(value)}
    return Made(metrics=figures, content_digest=digest, provenance=provenance)


def read_json(text: str) -> Any:
    """Raises ValueError or RecursionError; None stands for NaN and the infinities."""
    return json.loads(text, parse_constant=lambda _: None)


def _read(path: Path) -> Any:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise _damaged(path, "no regular file")
        return read_json(path.read_text("utf-8"))
    except OSError as error:
        raise _damaged(path, str(error.strerror)) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "no whole JSON") from error


def _shaped(found: Found | None, path: Path, why: str) -> Found:
    if found is None:
        raise _damaged(path, why)
    return found


def _damaged(path: Path, why: str) -> DamagedError:
    return DamagedError(f"{path} is damaged ({why}): restore it")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _is_sample(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and all(isinstance(row.get(key), str) for key in ("prompt", "before", "after"))
        and all(
            row.get(key) is None or _is_number(row[key]) for key in ("scoreBefore", "scoreAfter", "winRate", "rank")
        )
    )
