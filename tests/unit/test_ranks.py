"""The launcher of ranks with ranks that are a few lines of Python: what it tells them, and what it makes of their ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from bench import wait_until
from sppo_trainer.config import TrainConfig
from sppo_trainer.config_document import parse
from sppo_trainer.errors import ConfigError
from sppo_trainer.ranks import End, Rank, decisive

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from sppo_trainer import ranks
from sppo_trainer.errors import ConfigError, DataError, UserError

ranks.GRACE_SECONDS = 0.3
ranks.NAME_SECONDS = 0.0

def wait():
    Path(os.environ["MARKS"], os.environ["RANK"]).write_text(str(os.getpid()))
    signal.pause()

def until_waits(rank):
    while not Path(os.environ["MARKS"], str(rank)).exists():
        time.sleep(0.01)

def body(stage):
    rank = int(os.environ["RANK"])
    {body}

if __name__ == "__main__":
    ranks.main(body)
"""
KILLED = (
    "rank 1 ended with exit code 137 (SIGKILL): if its memory ran out, raise the memory limit or lower "
    "training.tokensPerMicroBatch"
)
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")


class Launcher:
    """A started launcher, and what its ranks left in a folder."""

    def __init__(self, folder: Path, body: str, *, workers: int = 1, processes: int = 2, **environment: str) -> None:
        self.marks = folder / "marks"
        self.marks.mkdir()
        self.log = folder / "termination"
        script = folder / "stage.py"
        script.write_text(SCRIPT.replace("{body}", body.replace("\n", "\n    ")), "utf-8")
        inherited = {name: value for name, value in os.environ.items() if name not in NAMES}
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            env=inherited
            | {
                "SPPO_CONFIG": document(folder, workers, processes),
                "SPPO_TERMINATION_LOG": str(self.log),
                "MARKS": str(self.marks),
                "OMP_NUM_THREADS": "7",
            }
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self) -> tuple[int, Any]:
        output, _ = self.process.communicate(timeout=60)
        print(output)
        return self.process.returncode, json.loads(self.log.read_text("utf-8")) if self.log.exists() else None

    def waiting(self, *ranks: int) -> list[int]:
        """Process ids of the ranks, once they wait."""
        paths = [self.marks / str(rank) for rank in ranks]
        wait_until(lambda: all(path.exists() and path.read_text() for path in paths))
        return [int(path.read_text()) for path in paths]


def document(workspace: Path, workers: int, processes: int) -> str:
    return json.dumps(
        {
            "contract": 1,
            "stage": "train",
            "run": {"namespace": "default", "name": "tiny", "digest": "d"},
            "workspace": str(workspace / "workspace"),
            "iteration": 1,
            "seed": 0,
            "workers": workers,
            "processesPerWorker": processes,
            "objective": {"beta": "0.05"},
            "training": {"learningRate": "1e-3"},
        }
    )


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize(
    ("body", "exit_code", "error"),
    [
        (
            "if rank == 1: raise DataError('prompts are damaged: copy them again')\nwait()",
            65,
            "prompts are damaged: copy them again",
        ),
        ("if rank == 1: raise RuntimeError('out of luck')\nwait()", 1, "RuntimeError: out of luck"),
        (
            "if rank == 1: os.kill(os.getpid(), signal.SIGKILL)\nwait()",
            137,
            KILLED,
        ),
        ("if rank == 1: os._exit(3)\nwait()", 3, "rank 1 ended with exit code 3"),
        (
            "if rank == 1: signal.signal(signal.SIGTERM, signal.SIG_IGN), wait()\nuntil_waits(1)\nraise ConfigError('a: b')",
            78,
            "a: b",
        ),
    ],
    ids=["a user's fault", "an error", "killed", "another exit code", "a peer that does not listen"],
)
def test_the_exit_code_of_a_failed_rank_survives(body: str, exit_code: int, error: str, tmp_path: Path) -> None:
    launcher = Launcher(tmp_path, body)
    assert launcher.end() == (exit_code, {"error": error})


def test_worker_1_of_2_starts_ranks_2_and_3_with_their_share_of_the_threads(tmp_path: Path) -> None:
    body = f"Path(os.environ['MARKS'], str(rank)).write_text(' '.join(os.environ[name] for name in {NAMES}))\n"
    body += "return {'metrics': {'worker': stage.worker, 'rank': rank}}"
    launcher = Launcher(tmp_path, body, workers=2, MASTER_ADDR="localhost", JOB_COMPLETION_INDEX="1")
    assert launcher.end() == (0, {"metrics": {"worker": 1, "rank": 2}})
    assert {path.name: path.read_text() for path in launcher.marks.iterdir()} == {
        "2": "2 0 4 localhost 29400 3",
        "3": "3 1 4 localhost 29400 3",
    }


def test_sigterm_ends_launcher_and_ranks_with_143_and_no_result(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path, "wait()")
    ranks = launcher.waiting(0, 1)
    launcher.process.terminate()
    started = time.monotonic()
    assert launcher.end() == (143, None)
    assert time.monotonic() - started < 5
    assert all(map(gone, ranks))


def test_ranks_die_with_their_launcher(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path, "wait()")
    ranks = launcher.waiting(0, 1)
    launcher.process.kill()
    launcher.end()
    wait_until(lambda: all(map(gone, ranks)))


@pytest.mark.parametrize(
    ("environment", "exit_code", "words"),
    [
        ({}, 78, "MASTER_ADDR is not set, with 2 workers"),
        ({"MASTER_ADDR": "no-such-worker.invalid"}, 1, "MASTER_ADDR is no-such-worker.invalid, which did not resolve"),
    ],
    ids=["no name", "a name that does not resolve"],
)
def test_workers_that_cannot_find_the_first_say_so(
    environment: dict[str, Any], exit_code: int, words: str, tmp_path: Path
) -> None:
    code, result = Launcher(tmp_path, "wait()", workers=2, **environment).end()
    assert code == exit_code
    assert words in result["error"]


def ends(*codes: int) -> list[End]:
    return [End(rank=Rank(number=n, pid=n, log=Path()), exit_code=code) for n, code in enumerate(codes)]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 0], None),
        ([0, 137, 1], 137),
        ([1, 137], 1),
        ([1, 143, 70, 65], 65),
        ([143, 143, 78], 78),
        ([63, 79], 63),
    ],
    ids=["success", "the first failure", "in order", "the lowest user's fault", "fault before signals", "bounds"],
)
def test_the_end_that_counts(codes: list[int], expected: int | None) -> None:
    end = decisive(ends(*codes))
    assert (end and end.exit_code) == expected


def test_processes_per_worker_is_at_least_1(tmp_path: Path) -> None:
    assert parse(TrainConfig, document(tmp_path, 3, 4)).ranks == 12
    with pytest.raises(ConfigError, match="processesPerWorker is 0: use at least 1"):
        parse(TrainConfig, document(tmp_path, 1, 0))
