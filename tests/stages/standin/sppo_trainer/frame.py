"""What every stand-in stage does: the contract, and the faults that a test asks for.

SPPO_STANDIN names a folder. `faults.json` in it maps a step ("train 1") to the faults of its starts, in order: crash,
user, kill, silent, wordy, hang, or "" for none. Each start appends a line about itself to `<step>.starts`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

METRICS: dict[str, dict[str, float]] = {
    "prepare": {"rows": 40, "duplicates": 1, "heldOut": 8, "pool": 31, "longestPrompt": 17},
    "generate": {"responses": 20, "tokens": 240, "meanTokens": 12.0, "cutShare": 0.05, "distinctShare": 1.0},
    "score": {"passRate": 0.4, "meanScore": 0.55, "tiedPrompts": 0, "meanBestWinRate": 0.8, "meanWorstWinRate": 0.2},
    "train": {"steps": 5, "loss": 12.5, "lossOverEta2": 0.03, "weightsChanged": 0.9, "samplerDifference": 0.001},
    "evaluate": {"passRate": 0.3, "meanTokens": 12.0, "distinctShare": 1.0, "klPerResponse": 0.5, "klPerToken": 0.04},
}
SAMPLE = {"prompt": "Why <b>now</b>?", "before": "Old & long", "after": "New", "winRate": 0.7}


def main(stage: str) -> None:
    config = json.loads(os.environ["SPPO_CONFIG"])
    step = stage if stage == "prepare" else f"{stage} {config['iteration']}"
    folder = Path(config["workspace"], config["run"]["namespace"], config["run"]["name"])
    artifact = folder / ("prepare" if stage == "prepare" else f"i{config['iteration']}/{stage}")
    print(json.dumps({"progress": progress(0)}), flush=True)
    fault(step)
    manifest = artifact / "manifest.json"
    if not manifest.exists():
        publish(manifest, payload(stage, artifact), metrics(stage, config["iteration"]), content(config, step))
    print(json.dumps({"progress": progress(4)}), flush=True)
    data = json.loads(manifest.read_text())
    end(0, {"metrics": data["result"], "contentDigest": data["contentDigest"]})


def fault(step: str) -> None:
    notes = Path(os.environ["SPPO_STANDIN"])
    with (notes / f"{step}.starts").open("a") as starts:
        seen = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "HF_HUB_OFFLINE")}
        starts.write(json.dumps({"pid": os.getpid(), "session": os.getsid(0)} | seen) + "\n")
    count = len((notes / f"{step}.starts").read_text().splitlines())
    planned = json.loads((notes / "faults.json").read_text()).get(step, [])
    match planned[count - 1] if count <= len(planned) else "":
        case "crash":
            end(1, {"error": "RuntimeError: the stand-in was told to crash"})
        case "user":
            end(65, {"error": "prompts.source has a bad line 7: mend it"})
        case "silent":
            sys.exit(0)
        case "wordy":
            end(0, {"metrics": {"words": "word " * 1000}, "contentDigest": "0"})
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
            (notes / f"{step}.hangs").touch()
            while True:
                signal.pause()


def metrics(stage: str, iteration: int) -> dict[str, float]:
    figures = dict(METRICS[stage])
    if stage == "train":
        figures |= {"logRatioBest": 1.0 - iteration, "logRatioWorst": -1.0 - iteration}
    if stage == "evaluate":
        middle = 0.5 + 0.1 * iteration
        figures |= {"winRateBase": middle, "winRateBaseLow": middle - 0.04, "winRateBaseHigh": middle + 0.04}
    return figures


def payload(stage: str, artifact: Path) -> list[dict[str, str]]:
    files = {
        "train": {"curves.json": {"step": [1, 2, 3], "lossOverEta2": [0.04, 0.03, 0.02], "logRatioBest": [0, 1, 2]}},
        "evaluate": {"samples.json": [SAMPLE]},
    }.get(stage, {})
    attempt = artifact / f"a-{os.getpid()}"
    attempt.mkdir(parents=True)
    for name, data in files.items():
        (attempt / name).write_text(json.dumps(data))
    return [{"name": name, "path": f"{attempt.name}/{name}"} for name in files]


def publish(manifest: Path, files: list[dict[str, str]], result: dict[str, float], digest: str) -> None:
    beside = manifest.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps({"files": files, "result": result, "contentDigest": digest}))
    beside.replace(manifest)


def content(config: dict[str, Any], step: str) -> str:
    return hashlib.sha256(f"{config['seed']} {config['run']['digest']} {step}".encode()).hexdigest()


def progress(done: int) -> dict[str, Any]:
    return {"done": done, "total": 4, "unit": "prompts", "secondsLeft": 4 - done, "figures": {"tokensPerSecond": 9.5}}


def end(code: int, result: dict[str, Any]) -> None:
    Path(os.environ["SPPO_TERMINATION_LOG"]).write_text(json.dumps(result))
    sys.exit(code)
