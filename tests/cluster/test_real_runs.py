"""The real trainer in real containers: what it computes is what `sppo run` computes, however the work is spread.

All runs are started at once, and while they work the same manifests are carried out by `sppo run` beside them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pipeline
import pytest
import yaml
from lab import Lab, condition, digests, stage
from namespaces import Namespace, lend
from operators import Operator, processes

ROOT = Path(__file__).parents[2]
MINUTES = 60.0
CHANGES = {
    ("iterations",): 1,
    ("prompts", "perIteration"): 24,
    ("generation", "chunkPrompts"): 2,
    # Three prompts per step on two ranks: one of them always holds more. 8 steps per epoch.
    ("training", "batchSize"): 3,
    ("training", "epochs"): 3,
    ("training", "learningRate"): "1e-4",
}
STAGES: dict[str, dict[str, Any]] = {
    "killed": {},
    "sharded": {"generate": {"workers": 2}, "score": {"workers": 3}, "train": {"workers": 2}},
    "ranks": {"train": {"processesPerWorker": 2}},
}
"""Runs of the tiny model, by name."""


def tiny_run(name: str, stages: dict[str, Any], **generation: Any) -> dict[str, Any]:
    spec: dict[str, Any] = pipeline.SPEC
    for path, value in CHANGES.items():
        spec = pipeline.changed(spec, ".".join(path), value)
    spec["generation"] |= generation
    return manifest(name, spec | {"stages": stages, "workspace": {"claimName": "workspace"}})


def short_demo() -> dict[str, Any]:
    demo = yaml.safe_load((ROOT / "manifests/examples/demo.yaml").read_text("utf-8"))
    demo["spec"]["prompts"] |= {"source": "data/things.jsonl", "perIteration": 6, "heldOut": 4}
    demo["spec"]["generation"] |= {"samples": 3, "chunkPrompts": 3}
    demo["spec"]["evaluation"]["samples"] = 2
    return manifest("demo", demo["spec"])


def manifest(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "sppo.dev/v1alpha1", "kind": "SPPORun", "metadata": {"name": name}, "spec": spec}


class Runs:
    """The runs of this file in one namespace, and their twins under `sppo run`."""

    def __init__(self, lab: Lab, space: Namespace, folder: Path) -> None:
        self.lab = lab
        self.space = space
        self._folder = folder
        self._local: dict[str, dict[str, str]] = {}

    def over(self, name: str) -> dict[str, Any]:
        """The run when it has ended well."""
        run = self.lab.until_over(self.space.name, name, seconds=12 * MINUTES)
        assert condition(run, "Succeeded")["status"] == "True", yaml.safe_dump(run["status"])
        return run

    def local(self, run: dict[str, Any]) -> dict[str, str]:
        """The digests of every stage when `sppo run` carries out the same manifest."""
        name = run["metadata"]["name"]
        if name not in self._local:
            workspace = self._folder / name
            workspace.mkdir()
            for part in ("models", "data"):
                (workspace / part).symlink_to(self.space.workspace / part)
            file = self._folder / f"{name}.json"
            file.write_text(json.dumps(run))
            command = [
                sys.executable,
                "-m",
                "sppo_operator",
                "run",
                str(file),
                "--workspace",
                str(workspace),
                "--plain",
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=12 * MINUTES, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            self._local[name] = digests(yaml.safe_load((workspace / "run.yaml").read_text("utf-8")))
        return self._local[name]

    def curves(self, name: str) -> dict[str, list[float]]:
        path = next(self.space.folder(name).glob("i1/train/a-*/curves.json"))
        return json.loads(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def runs(
    lab: Lab, operator: Operator, image: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runs]:
    trainer = image("trainer")
    space = Namespace.create(lab, "real-runs")
    pipeline.make_workspace(space.workspace, prompts=48)
    demo = tmp_path_factory.mktemp("demo")
    subprocess.run([sys.executable, ROOT / "demo/workspace.py", demo], check=True)
    model = "models/smollm2-135m-instruct"
    shutil.copytree(demo / model, space.workspace / model)
    shutil.copyfile(demo / "data/prompts.jsonl", space.workspace / "data/things.jsonl")
    lend(space.workspace)
    started = [
        *(tiny_run(name, stages) for name, stages in STAGES.items()),
        tiny_run("vllm", {}, engine="vLLM"),
        short_demo(),
    ]
    for run in started:
        run["spec"]["image"] = trainer
        space.apply(run)
    runs = Runs(lab, space, tmp_path_factory.mktemp("local"))
    kill_twice(runs)
    yield runs
    space.remove()


def kill_twice(runs: Runs) -> None:
    """SIGKILL to generation once it has a chunk, and to training once it has the reference's log-probabilities."""
    folder = runs.space.folder("killed")
    for work, sign in (
        ("generate", "i1/generate/chunks/*/manifest.json"),
        ("train", "i1/train/reference/manifest.json"),
    ):
        deadline = time.monotonic() + 8 * MINUTES
        while not any(folder.glob(sign)):
            assert time.monotonic() < deadline, f"{work} wrote no {sign}"
            time.sleep(0.02)  # a file system tells nobody
        for process in processes(f"sppo_trainer.{work}", f"killed-i1-{work}"):
            os.kill(process, signal.SIGKILL)


def test_the_demo_ends_in_the_digests_of_sppo_run(runs: Runs) -> None:
    expected = runs.local(short_demo())
    run = runs.over("demo")
    assert run["status"]["summary"]["iteration"] == "2/2"
    assert digests(run) == expected
    assert len(expected) == 10 and all(expected.values())


def test_kills_change_no_digest(runs: Runs) -> None:
    run = runs.over("killed")
    assert digests(run) == runs.local(tiny_run("killed", {}))
    assert stage(run, 1, "train")["attempts"][0]["exitCode"] == 137
    assert run["status"]["failures"] == {"application": 1}  # the killed shard was replaced within its Job


def test_shards_give_the_tables_of_one_worker(runs: Runs) -> None:
    expected, run = runs.local(tiny_run("killed", {})), runs.over("sharded")
    for step in ("generate 1", "score 1"):
        assert digests(run)[step] == expected[step]


@pytest.mark.parametrize("name", ["sharded", "ranks"])
def test_several_processes_train_as_one(runs: Runs, name: str) -> None:
    """Two pods, and two processes of one pod."""
    run = runs.over(name)
    alone, spread = runs.curves("killed"), runs.curves(name)
    assert len(spread["loss"]) >= 20
    np.testing.assert_allclose(spread["loss"], alone["loss"], rtol=1e-3)

    policy = run["status"]["iterations"][1]["policy"].removeprefix("pvc://workspace/")
    folder = runs.space.workspace / policy
    assert (folder / "model.safetensors").exists()
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0


def test_a_run_with_vllm_succeeds(runs: Runs) -> None:
    run = runs.over("vllm")
    assert float(stage(run, 1, "train")["metrics"]["samplerDifference"]) < 1e-2
    assert stage(run, 1, "evaluate")["contentDigest"]
