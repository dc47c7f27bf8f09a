"""One attempt of a stage as a local process: its start, its log, its end and what that means."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sppo_operator.commands.machine import usable_cores
from sppo_operator.decide import Outcome, Stage, Step
from sppo_operator.policy import TERMINATED
from sppo_operator.result import RESULT_BYTES, End, end_of, progress_of

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class StageProcess:
    """`python -m sppo_trainer.<stage>` in a session of its own, so that Ctrl-C reaches only the command."""

    def __init__(self, stage: Stage, config: str, log: Path) -> None:
        self.log = log
        self._result = log.with_suffix(".result.json")
        self._result.unlink(missing_ok=True)
        self._unread = b""
        with log.open("wb") as sink:
            self._popen = subprocess.Popen(  # noqa: S603 - this interpreter, a module of a fixed set
                [sys.executable, "-m", f"sppo_trainer.{stage.value}"],
                env=os.environ | _environment(stage, config, self._result),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - the command has one thread
            )
        self._tail = log.open("rb")

    def poll(self) -> End | None:
        """The end of the attempt, or None while it runs."""
        if os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        # The stage is a zombie until `wait`, so the number of its process group cannot have passed to another one.
        self._signal_group(signal.SIGKILL)
        return end_of(self._popen.wait(), _read(self._result), str(self.log))

    def progress(self) -> dict[str, Any] | None:
        """The newest progress line since the last call."""
        *lines, self._unread = (self._unread + self._tail.read()).split(b"\n")
        return next(filter(None, map(progress_of, reversed(lines))), None)

    def terminate(self) -> None:
        # Not Popen.send_signal, which reaps a stage that has ended; until `poll` does, the zombie keeps the number.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._popen.pid, signal.SIGTERM)

    def kill(self) -> None:
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)


def stop(processes: Mapping[Step, StageProcess], grace_seconds: float) -> dict[Step, End]:
    """End all: SIGTERM, and SIGKILL after the grace. What we stop counts as suspended, unless it was done."""
    for process in processes.values():
        process.terminate()
    deadline = time.monotonic() + grace_seconds
    ends: dict[Step, End] = {}
    while len(ends) < len(processes):
        for step, process in processes.items():
            if step not in ends and (end := process.poll()) is not None:
                ends[step] = end if end.outcome in (Outcome.SUCCEEDED, Outcome.USER_FAULT) else _stopped(end)
            elif step not in ends and time.monotonic() > deadline:
                process.kill()
        time.sleep(0.02)
    return ends


def _stopped(end: End) -> End:
    return End(outcome=Outcome.SUSPENDED, exit_code=end.exit_code, message="stopped with the command")


def _environment(stage: Stage, config: str, result: Path) -> dict[str, str]:
    environment = {
        "SPPO_CONFIG": config,
        "SPPO_TERMINATION_LOG": str(result),
        "PYTHONUNBUFFERED": "1",
        # The same count whether or not another stage runs beside: the order of a sum depends on it, and so do digests.
        "OMP_NUM_THREADS": str(usable_cores()),
        # Waiting threads that spin starve the stage beside them.
        "OMP_WAIT_POLICY": "passive",
    }
    return environment if stage is Stage.PREPARE else environment | {"HF_HUB_OFFLINE": "1"}


def _die_with(parent: int) -> Any:
    def before_exec() -> None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(TERMINATED)

    return before_exec


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(RESULT_BYTES + 1)
    except FileNotFoundError:
        return b""
