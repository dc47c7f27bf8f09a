"""What every stand-in stage does: the contract, work that takes as long as a test says, and the faults it asks for.

    SPPO_STANDIN       the folder for notes; `standin` in the run's folder of the workspace if unset
    STANDIN_SECONDS    how long a chunk takes (0)
    STANDIN_PROGRESS   printed in place of every progress line
    STANDIN_FAIL       see faults.py

Notes: each start appends a line about itself to `<step>.starts`, and each chunk to `work.jsonl`, when it is begun and when
it is kept. A training has several chunks too, which its first worker does; the others have nothing to do.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from sppo_trainer import faults

KUBELET_TERMINATION_LOG = Path("/dev/termination-log")
TRAINING_CHUNKS = 3
METRICS: dict[str, dict[str, float]] = {
    "prepare": {"rows": 40, "duplicates": 1, "heldOut": 8, "pool": 31, "longestPrompt": 17},
    "generate": {"responses": 20, "tokens": 240, "meanTokens": 12.0, "cutShare": 0.05, "distinctShare": 1.0},
    "score": {"passRate": 0.4, "meanScore": 0.55, "tiedPrompts": 0, "meanBestWinRate": 0.8, "meanWorstWinRate": 0.2},
    "train": {"steps": 5, "loss": 12.5, "lossOverEta2": 0.03, "weightsChanged": 0.9, "samplerDifference": 0.001},
    "evaluate": {"passRate": 0.3, "meanTokens": 12.0, "distinctShare": 1.0, "klPerResponse": 0.5, "klPerToken": 0.04},
}
SAMPLE = {"prompt": "Why <b>now</b>?", "before": "Old & long", "after": "New", "winRate": 0.7}
NOTED = ("SPPO_CONFIG", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "HF_HUB_OFFLINE", "JOB_COMPLETION_INDEX", "MASTER_ADDR")


def main(stage: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    end(0, Standin(stage).work())


class Standin:
    """One start of one worker of a stage."""

    def __init__(self, stage: str) -> None:
        self.config = json.loads(os.environ["SPPO_CONFIG"])
        self.stage, self.iteration = stage, self.config["iteration"]
        self.step = stage if stage == "prepare" else f"{stage} {self.iteration}"
        self.run = Path(self.config["workspace"], self.config["run"]["namespace"], self.config["run"]["name"])
        self.folder = self.run / ("prepare" if stage == "prepare" else f"i{self.iteration}/{stage}")
        self.manifest = self.folder / "manifest.json"
        self.attempt = self.folder / f"a-{platform.node()}-{os.getpid()}"
        self.worker = int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
        self.notes = Path(os.environ.get("SPPO_STANDIN", self.run / "standin"))
        self.notes.mkdir(parents=True, exist_ok=True)
        seen = {name: os.environ.get(name) for name in NOTED} | {"alone": self.alone()}
        self.start = self.note(f"{self.step}.starts", {"pid": os.getpid(), "session": os.getsid(0)} | seen)

    def work(self) -> dict[str, Any]:
        """Do this worker's chunks; the stage's result if they were the last."""
        chunks = [self.folder / f"chunks/{number:05}.json" for number in range(self.chunk_count())]
        mine = [path for number, path in enumerate(chunks) if number % self.workers() == self.worker]
        for done, path in enumerate([*mine, None]):
            self.progress(done, len(mine))
            kind = faults.due(self.notes, self.step, start=self.start, worker=self.worker, done=done)
            faults.commit(kind, self.notes / f"{self.step}.hangs", end)
            if path is not None and not (path.exists() or self.manifest.exists()):
                self.work_on(path)
        if not self.manifest.exists():
            if not all(path.exists() for path in chunks):
                return {"metrics": {"worker": self.worker}}
            content = "".join(path.read_text() for path in chunks)
            result = {"result": self.metrics(), "contentDigest": hashlib.sha256(content.encode()).hexdigest()}
            self.publish(self.manifest, json.dumps({"files": self.payload()} | result))
        data = json.loads(self.manifest.read_text())
        return {"metrics": data["result"], "contentDigest": data["contentDigest"]}

    def alone(self) -> bool:
        """Whether no other process does the same now; the lock lasts as long as this one lives."""
        self.lock = (self.notes / f"{self.step}.{self.worker}.lock").open("w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def workers(self) -> int:
        """Those among whom the chunks are divided."""
        return 1 if self.stage == "train" else int(self.config["workers"])

    def chunk_count(self) -> int:
        if self.stage == "generate":
            prompts, each = self.config["prompts"]["perIteration"], self.config["generation"]["chunkPrompts"]
            return len(range(0, prompts, each))
        if self.stage == "score":
            return len(list(self.folder.with_name("generate").glob("chunks/*.json")))
        return TRAINING_CHUNKS if self.stage == "train" else 1

    def work_on(self, path: Path) -> None:
        line = {"step": self.step, "chunk": path.stem, "worker": self.worker, "host": platform.node()}
        self.note("work.jsonl", line | {"event": "begun"})
        time.sleep(float(os.environ.get("STANDIN_SECONDS", "0")))
        text = f"{self.config['seed']} {self.config['run']['digest']} {self.step} {path.stem}"
        kept = self.publish(path, hashlib.sha256(text.encode()).hexdigest())
        self.note("work.jsonl", line | {"event": "kept" if kept else "late"})

    def publish(self, path: Path, text: str) -> bool:
        """Whole or not at all; whether it was not there before."""
        self.attempt.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(exist_ok=True)
        draft = self.attempt / path.name
        draft.write_text(text)
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    def payload(self) -> list[dict[str, str]]:
        curves = {"step": [1, 2, 3], "lossOverEta2": [0.04, 0.03, 0.02], "logRatioBest": [0, 1, 2]}
        stages: dict[str, dict[str, Any]] = {"train": {"curves.json": curves}, "evaluate": {"samples.json": [SAMPLE]}}
        files = stages.get(self.stage, {})
        self.attempt.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (self.attempt / name).write_text(json.dumps(data))
        return [{"name": name, "path": f"{self.attempt.name}/{name}"} for name in files]

    def metrics(self) -> dict[str, float]:
        figures = dict(METRICS[self.stage])
        if self.stage == "train":
            figures |= {"logRatioBest": 1.0 - self.iteration, "logRatioWorst": -1.0 - self.iteration}
        if self.stage == "evaluate":
            middle = 0.5 + 0.1 * self.iteration
            figures |= {"winRateBase": middle, "winRateBaseLow": middle - 0.04, "winRateBaseHigh": middle + 0.04}
        return figures

    def progress(self, done: int, total: int) -> None:
        line = {
            "done": done,
            "total": total,
            "unit": "chunks",
            "secondsLeft": total - done,
            "figures": {"tokensPerSecond": 9.5},
        }
        print(os.environ.get("STANDIN_PROGRESS") or json.dumps({"progress": line}), flush=True)

    def note(self, name: str, line: Mapping[str, Any]) -> int:
        """Append a line to a note, of which there are so many then."""
        with (self.notes / name).open("a") as notes:
            notes.write(json.dumps(line) + "\n")
        return len((self.notes / name).read_text().splitlines())


def end(code: int, result: Mapping[str, Any]) -> NoReturn:
    path = os.environ.get("SPPO_TERMINATION_LOG") or (
        KUBELET_TERMINATION_LOG if KUBELET_TERMINATION_LOG.exists() else "/dev/stdout"
    )
    Path(path).write_text(json.dumps(result))
    sys.exit(code)
