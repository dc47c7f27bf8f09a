"""Measure what the settings do: python docs/tuning/measure.py FOLDER

Runs `sppo run` on the demo with fewer prompts, once per setting and seed, and appends a line per iteration to
results.jsonl. What is there already is not run again; FOLDER holds the workspaces (4 GB). Sampling is seeded: another
machine of the same type gives the same numbers, however busy it is.

Runs of one seed share what they have in common with the demo's own run: artifacts whose configuration and inputs are
the same are linked, not made again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results.jsonl")
SEEDS = (1, 2)
SMALLER: Mapping[str, Any] = {
    "prompts.perIteration": 32,
    "prompts.heldOut": 40,
    "training.batchSize": 2,  # as many steps as the demo
    "generation.precision": "BFloat16",  # as on GPUs; three times as fast on CPUs with instructions for it
    "training.precision": "BFloat16",
    "evaluation.samples": 3,
    "evaluation.against": ["Base"],
    "evaluation.parallel": False,
}
FIGURES = {
    "train": ("logRatioBest", "logRatioWorst", "attainedBest", "attainedWorst", "lossOverEta2", "steps", "tiedPrompts"),
    "evaluate": ("winRateBase", "passRate", "klPerResponse", "meanTokens", "cutShare", "distinctShare"),
}


SHARED = {
    "objective": ("prepare", "i0/evaluate", "i1/generate", "i1/score"),
    "training": ("prepare", "i0/evaluate", "i1/generate", "i1/score"),
    "generation": ("prepare", "i0/evaluate/samples"),
}
"""What a run with another such section has in common with the demo's, as the stages' configurations say."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The demo, made smaller, with these changes, all in one section."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    iterations: int = 1


DEMO = Setting(name="demo", iterations=2)
SETTINGS = (
    DEMO,
    Setting(name="beta 0.001", changes={"objective.beta": "0.001"}, iterations=2),
    Setting(name="learningRate 3e-5", changes={"training.learningRate": "3e-5"}),
    Setting(name="beta 0.5", changes={"objective.beta": "0.5"}),
    Setting(name="samples 2", changes={"generation.samples": 2}),
)


def main(folder: Path) -> None:
    done = {(row["setting"], row["seed"]) for row in results()}
    for setting in SETTINGS:
        for seed in SEEDS:
            if (setting.name, seed) not in done:
                rows = measured(setting, seed, folder / f"seed-{seed}")
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(row) + "\n" for row in rows)


def results() -> list[dict[str, Any]]:
    """A row per setting, seed and iteration."""
    return [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()] if RESULTS.exists() else []


def measured(setting: Setting, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Carry out one run; its rows."""
    workspace = folder / setting.name.replace(" ", "-")
    subprocess.run([sys.executable, ROOT / "demo/workspace.py", folder.parent, workspace], check=True)  # noqa: S603
    if setting is not DEMO and not (workspace / "default").exists():
        share(folder / "demo/default/demo", workspace / "default/demo", setting)
    file = workspace / "run.json"
    file.write_text(json.dumps(manifest(setting, seed)), "utf-8")  # which is YAML
    command = [sys.executable, "-m", "sppo_operator", "run", file, "--workspace", workspace, "--plain"]
    subprocess.run(command, check=True)  # noqa: S603
    rows = list(rows_of(workspace, setting, seed))
    if setting is not DEMO:
        shutil.rmtree(workspace)
    return rows


def manifest(setting: Setting, seed: int) -> dict[str, Any]:
    run: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/demo.yaml").read_text("utf-8"))
    run["spec"] |= {"iterations": setting.iterations, "seed": seed}
    for path, value in (SMALLER | dict(setting.changes)).items():
        section, name = path.split(".")
        run["spec"][section][name] = value
    return run


def share(demo: Path, run: Path, setting: Setting) -> None:
    """Link the artifacts that this run would make with the same content."""
    (section,) = {path.split(".")[0] for path in setting.changes}
    for part in SHARED[section]:
        shutil.copytree(demo / part, run / part, copy_function=os.link)


def rows_of(workspace: Path, setting: Setting, seed: int) -> Sequence[dict[str, Any]]:
    status = yaml.safe_load((workspace / "run.yaml").read_text("utf-8"))["status"]
    assert status["phase"] == "Succeeded", status
    degraded = next(item["reason"] for item in status["conditions"] if item["type"] == "Degraded")
    rows = []
    for iteration in status["iterations"][1:]:
        number = iteration["number"]
        metrics = {stage["stage"]: stage["metrics"] for stage in iteration["stages"]}
        (table,) = workspace.glob(f"default/demo/i{number}/evaluate/a-*/evaluation.parquet")
        rows.append(
            {
                "setting": setting.name,
                "seed": seed,
                "iteration": number,
                **{name: float(metrics[stage][name]) for stage, names in FIGURES.items() for name in names},
                **({"degraded": degraded} if number == setting.iterations else {}),
                "winRates": [round(value, 4) for value in pq.read_table(table)["win_rate"].to_pylist()],
            }
        )
    return rows


if __name__ == "__main__":
    main(Path(sys.argv[1]))
