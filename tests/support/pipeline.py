"""Runs stages as the operator would: their real entry points, one after the other, on a tiny model."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny

STAGES = ("prepare", "generate", "score", "train", "evaluate")
SECTIONS = {
    "prepare": ("model", "prompts", "generation", "preference", "evaluation"),
    "generate": ("prompts", "generation"),
    "score": ("generation", "preference"),
    "train": ("objective", "training"),
    "evaluate": ("generation", "preference", "evaluation", "training"),
}
SPEC: dict[str, Any] = {
    "model": {"source": "models/tiny"},
    "prompts": {"source": "data/prompts.jsonl", "perIteration": 8, "heldOut": 4},
    "preference": {
        "kind": "Verifier",
        "verifier": {
            "rules": [
                {"kind": "Length", "unit": "Tokens", "max": 9},
                {"kind": "Regex", "pattern": "[a-m]", "weight": "2"},
            ]
        },
    },
    "objective": {"beta": "0.05"},
    "generation": {
        "samples": 3,
        "maxTokens": 12,
        "engine": "Transformers",
        "precision": "Float32",
        "chunkPrompts": 3,
    },
    "training": {
        "learningRate": "1e-3",
        "batchSize": 3,
        "precision": "Float32",
        "saveDtype": "Float32",
        "activationCheckpointing": False,
        "checkpointMinutes": 0,
    },
    "evaluation": {"samples": 2},
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    exit_code: int
    result: Mapping[str, Any] | None
    output: str

    @property
    def error(self) -> str:
        assert self.result is not None, self.output
        return str(self.result["error"])


def make_workspace(root: Path, *, prompts: int = 24) -> Path:
    tiny.save_model(root / "models/tiny")
    tiny.write_prompts(root / "data/prompts.jsonl", prompts)
    return root


def changed(spec: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of the spec with the value at the dotted path; None removes it."""
    copied: dict[str, Any] = copy.deepcopy(dict(spec))
    *parents, last = path.split(".")
    section = copied
    for key in parents:
        section = section.setdefault(key, {})
    if value is None:
        del section[last]
    else:
        section[last] = value
    return copied


def config(stage: str, iteration: int, root: Path, spec: Mapping[str, Any] = SPEC, **extra: Any) -> str:
    document = {
        "contract": 1,
        "stage": stage,
        "run": {"namespace": "default", "name": "tiny", "digest": "d" * 64},
        "workspace": str(root),
        "iteration": iteration,
        "seed": 0,
        **({"iterations": 2} if stage == "prepare" else {}),
        **{name: spec[name] for name in SECTIONS[stage]},
        **extra,
    }
    return json.dumps(document, ensure_ascii=False)


def environment(document: str, log: Path, worker: int = 0) -> dict[str, str]:
    return os.environ | {
        "SPPO_CONFIG": document,
        "SPPO_TERMINATION_LOG": str(log),
        "JOB_COMPLETION_INDEX": str(worker),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


def start(stage: str, document: str, log: Path, worker: int = 0, **variables: str) -> subprocess.Popen[str]:
    log.unlink(missing_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", f"sppo_trainer.{stage}"],
        env=environment(document, log, worker) | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(stage: str, document: str, root: Path, worker: int = 0, **variables: str) -> Outcome:
    """The stage as a process of its own."""
    log = root / f"{stage}.termination"
    process = start(stage, document, log, worker, **variables)
    output, _ = process.communicate(timeout=300)
    return Outcome(exit_code=process.returncode, result=read_result(log), output=output)


def read_result(log: Path) -> Mapping[str, Any] | None:
    text = log.read_text("utf-8") if log.exists() else ""
    return json.loads(text) if text else None


def steps(iterations: int) -> Iterator[tuple[str, int]]:
    yield "prepare", 0
    yield "evaluate", 0
    for iteration in range(1, iterations + 1):
        for stage in ("generate", "score", "train", "evaluate"):
            yield stage, iteration


def digests(root: Path) -> dict[str, str]:
    """Content digest of every finished stage of the run in the workspace."""
    folder = root / "default/tiny"
    return {
        str(path.parent.relative_to(folder)): json.loads(path.read_text("utf-8"))["contentDigest"]
        for path in sorted(folder.rglob("manifest.json"))
        if "chunks" not in path.parts
    }


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)


def run_inside(stage: str, document: str, root: Path, worker: int = 0, log: Path | None = None) -> Outcome:
    """The stage in this process, without the seconds of importing torch; only its output is not seen."""
    import importlib

    from sppo_trainer import config as configs
    from sppo_trainer.stage import run as run_stage

    log = log or root / f"{stage}.termination"
    log.unlink(missing_ok=True)
    before = dict(os.environ)
    os.environ.update(environment(document, log, worker))
    try:
        module = importlib.import_module(f"sppo_trainer.{stage}")
        exit_code = run_stage(getattr(configs, f"{stage.capitalize()}Config"), getattr(module, stage))
    finally:
        os.environ.clear()
        os.environ.update(before)
    return Outcome(exit_code=exit_code, result=read_result(log), output="")


def run_all(root: Path, iterations: int = 1, spec: Mapping[str, Any] = SPEC) -> dict[str, str]:
    """All stages in this process; returns the content digests."""
    for stage, iteration in steps(iterations):
        outcome = run_inside(stage, config(stage, iteration, root, spec), root)
        assert outcome.exit_code == 0, outcome.result
    return digests(root)
