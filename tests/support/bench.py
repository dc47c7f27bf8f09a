"""`sppo run` as a process, on a workspace of its own, with the stand-in trainer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from sppo_operator.schema import schema_causes, spporun_schema

STANDIN = Path(__file__).parents[1] / "stages/standin"
DEADLINE_SECONDS = 60.0
STEPS_OF_ONE_ITERATION = ["evaluate 0", "evaluate 1", "generate 1", "prepare", "score 1", "train 1"]
MANIFEST = """
apiVersion: sppo.dev/v1alpha1
kind: SPPORun
metadata: {name: demo, namespace: lab}
spec:
  iterations: 1
  model: {source: models/base, systemPrompt: 'Costs $5, $(HOME), 简短'}
  prompts: {source: prompts.jsonl, perIteration: 10, heldOut: 8}
  preference: {kind: Verifier, verifier: {rules: [{kind: Regex, pattern: '\\.$'}]}}
  objective: {beta: "0.05"}
  training: {learningRate: "5e-6"}
  workspace: {claimName: models}
  retries: {limit: 1}
"""


class Bench:
    """One workspace, one manifest, and the notes of the stand-in trainer."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "workspace"
        self.file = folder / "run.yaml"
        self.notes = folder / "notes"
        self.notes.mkdir()
        self.commands: list[subprocess.Popen[str]] = []
        self.manifest = yaml.safe_load(MANIFEST)
        self.faults()

    def faults(self, **faults: list[str]) -> None:
        """faults(train_1=["crash", ""]): what the first starts of a step do."""
        named = {step.replace("_", " "): kinds for step, kinds in faults.items()}
        (self.notes / "faults.json").write_text(json.dumps(named))

    def start(self, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """The command as a process, in a process group of its own as a shell would put it."""
        self.file.write_text(json.dumps(self.manifest))  # which is YAML
        path = os.pathsep.join([str(STANDIN), os.environ.get("PYTHONPATH", "")])
        command = subprocess.Popen(
            [sys.executable, "-m", "sppo_operator", *(arguments or ("run", self.file, "--workspace", self.workspace))],
            env=os.environ | {"PYTHONPATH": path, "SPPO_STANDIN": str(self.notes), "TERM": "xterm", "COLUMNS": "160"},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self.commands.append(command)
        return command

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = self.start(*arguments)
        out, error = command.communicate(timeout=DEADLINE_SECONDS)
        assert "Traceback" not in error
        return subprocess.CompletedProcess(command.args, command.returncode, out, error)

    def start_and_hang(self, step: str, **faults: list[str]) -> subprocess.Popen[str]:
        """A command whose given step, in its next start, works for ever; returns when it does."""
        self.faults(**{step.replace(" ", "_"): ["hang"]}, **faults)
        command = self.start()
        wait_until(lambda: (self.notes / f"{step}.hangs").exists() or command.poll() is not None)
        assert command.poll() is None, command.communicate()
        return command

    def starts(self) -> dict[str, list[dict[str, Any]]]:
        return {
            path.stem: [json.loads(line) for line in path.read_text().splitlines()]
            for path in sorted(self.notes.glob("*.starts"))
        }

    def start_counts(self) -> dict[str, int]:
        return {step: len(starts) for step, starts in self.starts().items()}

    def resource(self) -> dict[str, Any]:
        resource: dict[str, Any] = yaml.safe_load((self.workspace / "run.yaml").read_text())
        assert [str(cause) for cause in schema_causes(resource, spporun_schema())] == []
        return resource

    def condition(self, kind: str) -> tuple[str, str, str]:
        (found,) = (item for item in self.resource()["status"]["conditions"] if item["type"] == kind)
        return found["status"], found["reason"], found["message"]

    def stages(self) -> dict[str, dict[str, Any]]:
        return {
            stage["stage"] if stage["stage"] == "prepare" else f"{stage['stage']} {iteration['number']}": stage
            for iteration in self.resource()["status"]["iterations"]
            for stage in iteration["stages"]
        }

    def outcomes(self, step: str) -> list[str]:
        return [attempt["outcome"] for attempt in self.stages()[step]["attempts"]]

    def digests(self) -> dict[str, str]:
        return {step: stage["contentDigest"] for step, stage in self.stages().items()}

    def living(self) -> list[int]:
        """Stages that still run; a zombie does not."""
        pids = [start["pid"] for starts in self.starts().values() for start in starts]
        return [pid for pid in pids if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "this never came true"
        time.sleep(0.01)
