"""Faults that a test asks for.

`faults.json` in the notes maps a step ("train 1") to the faults of its starts, in order, "" for none. STANDIN_FAIL holds
faults separated by blanks, as an environment can reach a pod:

    STAGE:ITERATION:KIND[:times=N][:worker=K][:after=N]     generate:1:exit=1:times=2:after=1

`times` starts of all pods have it (1), those of worker K only (all), when they have done N chunks (0). The kinds:
crash, user, exit=CODE, kill, hang (until SIGTERM), deaf (not even then), hold (every start, until the notes have a file
`released`), silent (done, but no result), wordy (too long a result).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

ENDS: dict[str, tuple[int, dict[str, Any]]] = {
    "crash": (1, {"error": "RuntimeError: the stand-in was told to crash"}),
    "user": (65, {"error": "prompts.source has a bad line 7: mend it"}),
    "wordy": (0, {"metrics": {"words": "word " * 1000}, "contentDigest": "0"}),
}
End = Callable[[int, Mapping[str, Any]], NoReturn]


def due(notes: Path, step: str, *, start: int, worker: int, done: int) -> str:
    """The kind of the fault that a start of a worker has after so many chunks, "" for none."""
    file = notes / "faults.json"
    listed = json.loads(file.read_text()).get(step, []) if file.exists() else []
    if done == 0 and start <= len(listed) and listed[start - 1]:
        return str(listed[start - 1])
    for text in os.environ.get("STANDIN_FAIL", "").split():
        stage, iteration, kind, *rest = text.split(":")
        options = {name: int(value) for name, _, value in (option.partition("=") for option in rest)}
        here = stage if stage == "prepare" else f"{stage} {iteration}"
        wanted = (here, options.get("worker", worker), options.get("after", 0))
        if wanted == (step, worker, done) and (kind == "hold" or _claim(notes, text, options.get("times", 1))):
            return kind
    return ""


def _claim(notes: Path, fault: str, times: int) -> bool:
    """Whether this is one of the first `times` claims of all pods."""
    for number in range(times):
        try:
            (notes / f"{fault}.{number}").touch(exist_ok=False)
            return True
        except FileExistsError:
            continue
    return False


def commit(kind: str, hangs: Path, end: End) -> None:
    """Do it; returns only if there is nothing to do. `hangs` is made by a start that hangs."""
    if kind.startswith("exit="):
        end(int(kind[5:]), {"error": f"the stand-in was told to {kind}"})
    elif kind in ENDS:
        end(*ENDS[kind])
    elif kind == "silent":
        sys.exit(0)
    elif kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)  # which a process 1 survives:
        os._exit(128 + signal.SIGKILL)
    elif kind:
        if kind == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        hangs.touch()
        while not (kind == "hold" and (hangs.parent / "released").exists()):
            time.sleep(0.05)  # the test is on the other side of a mount, where nothing can be waited for
