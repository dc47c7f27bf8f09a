"""The stand-in trainer, on which the tests of the operator lean."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bench import STANDIN, wait_until

CHUNKS = 5


def start(
    workspace: Path, stage: str, *, worker: int = 0, workers: int = 1, **environment: str
) -> subprocess.Popen[str]:
    config = {
        "run": {"namespace": "lab", "name": "demo", "digest": "d"},
        "workspace": str(workspace),
        "iteration": 0 if stage == "prepare" else 1,
        "seed": 0,
        "workers": workers,
        "prompts": {"perIteration": 10},
        "generation": {"chunkPrompts": 2},
    }
    mine = {
        "SPPO_CONFIG": json.dumps(config),
        "SPPO_TERMINATION_LOG": str(result(workspace, worker)),
        "JOB_COMPLETION_INDEX": str(worker),
    }
    command = [sys.executable, "-m", f"sppo_trainer.{stage}"]
    return subprocess.Popen(
        command, env=os.environ | mine | environment | {"PYTHONPATH": str(STANDIN)}, stdout=subprocess.PIPE, text=True
    )


def run(workspace: Path, stage: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """Exit code and result."""
    process = start(workspace, stage, **options)
    process.communicate(timeout=60)
    written = result(workspace, options.get("worker", 0))
    return process.returncode, json.loads(written.read_text()) if written.exists() else {}


def result(workspace: Path, worker: int) -> Path:
    return workspace / f"result-{worker}.json"


def work(workspace: Path, event: str) -> Counter[str]:
    lines = (workspace / "lab/demo/standin/work.jsonl").read_text().splitlines()
    return Counter(line["chunk"] for line in map(json.loads, lines) if line["event"] == event)


def digest_of_one_worker(workspace: Path) -> str:
    workspace.mkdir()
    return str(run(workspace, "generate")[1]["contentDigest"])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=str)
def test_workers_share_the_chunks_and_the_last_one_commits(tmp_path: Path, order: tuple[int, ...]) -> None:
    *others, last = (run(tmp_path, "generate", worker=worker, workers=3) for worker in order)
    assert others == [(0, {"metrics": {"worker": worker}}) for worker in order[:2]]
    assert last[1]["contentDigest"] == digest_of_one_worker(tmp_path / "alone")
    assert set(work(tmp_path, "kept").values()) == {1}
    assert len(work(tmp_path, "kept")) == CHUNKS


def test_a_chunk_that_was_kept_survives_a_kill(tmp_path: Path) -> None:
    fault = {"STANDIN_FAIL": "generate:1:kill:after=2"}
    assert run(tmp_path, "generate", **fault)[0] in (-signal.SIGKILL, 137)
    assert len(work(tmp_path, "kept")) == 2
    assert run(tmp_path, "generate", **fault)[1]["contentDigest"] == digest_of_one_worker(tmp_path / "calm")
    assert set(work(tmp_path, "kept").values()) == {1}


def test_sigterm_says_143_and_the_next_start_does_the_chunk_again(tmp_path: Path) -> None:
    process = start(tmp_path, "generate", STANDIN_SECONDS="600")
    wait_until((tmp_path / "lab/demo/standin/work.jsonl").exists)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert run(tmp_path, "generate")[0] == 0
    assert work(tmp_path, "begun")["00000"] == 2
    assert set(work(tmp_path, "kept").values()) == {1}


FAULTS = {
    "a code, twice": ("train:1:exit=70:times=2", [70, 70, 0]),
    "only of another worker": ("train:1:exit=70:worker=1", [0]),
    "only of another iteration": ("train:2:exit=70", [0]),
    "a user's fault": ("train:1:user", [65, 0]),
    "two in a row": ("train:1:crash train:1:exit=66", [1, 66, 0]),
}


@pytest.mark.parametrize(("fault", "codes"), FAULTS.values(), ids=FAULTS)
def test_faults_come_as_often_as_they_were_asked_for(tmp_path: Path, fault: str, codes: list[int]) -> None:
    assert [run(tmp_path, "train", STANDIN_FAIL=fault)[0] for _ in codes] == codes


def test_the_other_workers_of_a_training_have_nothing_to_do(tmp_path: Path) -> None:
    assert run(tmp_path, "train", worker=1, workers=2) == (0, {"metrics": {"worker": 1}})
    assert set(run(tmp_path, "train", worker=0, workers=2)[1]) == {"metrics", "contentDigest"}


def test_score_has_the_chunks_of_generate(tmp_path: Path) -> None:
    run(tmp_path, "generate")
    run(tmp_path, "score")
    assert work(tmp_path, "kept") == dict.fromkeys((f"{chunk:05}" for chunk in range(CHUNKS)), 2)


def test_a_finished_stage_says_its_result_again_without_work(tmp_path: Path) -> None:
    first = run(tmp_path, "evaluate")
    assert run(tmp_path, "evaluate", STANDIN_SECONDS="600") == first
