"""The ranks of a stage: processes that work together, their launcher, and the one exit code that is left of them.

Worker k of n starts the ranks k p .. k p + p - 1 of n p, each of them its own command again with these variables:

    RANK, LOCAL_RANK, WORLD_SIZE   which rank this is, in the world and in its worker
    MASTER_ADDR, MASTER_PORT       where rank 0 listens
    OMP_NUM_THREADS                the worker's threads, divided among its ranks
    SPPO_TERMINATION_LOG           a file for this rank's result, which the launcher reads
    SPPO_LAUNCHER                  the launcher's process id

Nothing is restarted: what one rank loses, all lose, and the next attempt resumes from a checkpoint. The launcher ends
with a user's fault (64..78) of any rank; else with 143 if it was told to end; else like the rank that failed first,
for the others may have failed only because that one was gone.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from sppo_trainer import stage as stages
from sppo_trainer.config import TrainConfig
from sppo_trainer.errors import ConfigError
from sppo_trainer.stage import Body, ExitError, Stage

DEFAULT_PORT = 29400
NAME_SECONDS = 300.0
"""How long the first worker's name may take to resolve: its pod may still be waiting for a node."""
GRACE_SECONDS = 5.0
"""From SIGTERM to SIGKILL. A rank ends at SIGTERM at once, unless the kernel or a driver holds it."""
USER_FAULTS = range(64, 79)
TERMINATED = 128 + signal.SIGTERM
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Rank:
    """A running rank."""

    number: int
    pid: int
    log: Path


@dataclass(frozen=True, kw_only=True)
class End:
    rank: Rank
    exit_code: int
    """As a shell shows it: 128 + the signal's number for a process that was killed."""


def main(body: Body[TrainConfig]) -> NoReturn:
    """Run the stage as this process; as one of several ranks; or as the launcher of ranks."""
    if "SPPO_LAUNCHER" in os.environ:  # not RANK, which the user's own variables may have
        _die_with_launcher()
        # Python's handlers do not run inside a collective, so only the default action ends a rank at once.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        exit_code = stages.run(TrainConfig, body)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)  # cleaning up could wait for ranks that are gone, or end in another exit code
    stages.main(TrainConfig, lambda stage: body(stage) if stage.config.ranks == 1 else launch(stage))


def launch(stage: Stage[TrainConfig]) -> Mapping[str, Any]:
    """Run this worker's ranks; the result is that of its first one.

    Raises:
        ExitError: a rank failed; with the exit code and the sentence to end with.
        ConfigError: there are several workers, and nothing says where the first one is.
    """
    config = stage.config
    environment = _environment(config)
    if config.workers > 1:
        _wait_for_name(environment["MASTER_ADDR"])
    with tempfile.TemporaryDirectory(prefix="sppo-ranks-") as folder:
        events = _listen()
        first = stage.worker * config.processes_per_worker
        ranks = [
            _start(first + local, local, environment, Path(folder)) for local in range(config.processes_per_worker)
        ]
        ends, terminated = _wait(ranks, events)
        failure = decisive(ends)
        result = _result(failure or End(rank=ranks[0], exit_code=0))
    if failure is None:
        return result
    if terminated and failure.exit_code not in USER_FAULTS:
        os._exit(TERMINATED)  # without a result, like every stage that is told to end
    raise ExitError(result["error"], failure.exit_code)


def decisive(ends: Sequence[End]) -> End | None:
    """The failure that counts, of ends in the order in which they came; None if there is none."""
    failures = [end for end in ends if end.exit_code]
    faults = [end for end in failures if end.exit_code in USER_FAULTS]
    return min(faults, key=lambda end: end.exit_code) if faults else next(iter(failures), None)


def _environment(config: TrainConfig) -> dict[str, str]:
    """What all ranks of this worker have in common."""
    if config.workers > 1 and "MASTER_ADDR" not in os.environ:
        raise ConfigError(
            f"MASTER_ADDR is not set, with {config.workers} workers: set it to the host name of worker 0, as the "
            "operator does"
        )
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    # Ranks of one worker need no port that others know, and several runs may share the machine.
    default_port = DEFAULT_PORT if config.workers > 1 else _free_port()
    return os.environ | {
        "WORLD_SIZE": str(config.ranks),
        "MASTER_ADDR": os.environ.get("MASTER_ADDR", "127.0.0.1"),
        "MASTER_PORT": os.environ.get("MASTER_PORT", str(default_port)),
        "OMP_NUM_THREADS": str(max(1, threads // config.processes_per_worker)),
        "SPPO_LAUNCHER": str(os.getpid()),
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for_name(host: str) -> None:
    """Until the host name resolves: Kubernetes publishes a pod's name some seconds after the pod."""
    deadline = time.monotonic() + NAME_SECONDS
    while True:
        try:
            socket.getaddrinfo(host, None)
            return
        except socket.gaierror as error:
            if time.monotonic() > deadline:
                raise ExitError(
                    f"MASTER_ADDR is {host}, which did not resolve within {NAME_SECONDS:g} s ({error.strerror}): check "
                    "that worker 0 has a pod and that the run's headless Service selects it",
                    exit_code=1,
                ) from error
        time.sleep(1)


def _listen() -> queue.SimpleQueue[int]:
    """Signals that end this process or announce the end of a rank, in a queue that can be waited for."""
    events: queue.SimpleQueue[int] = queue.SimpleQueue()

    def note(signum: int, _frame: FrameType | None) -> None:
        events.put(signum)

    signal.signal(signal.SIGCHLD, note)
    signal.signal(signal.SIGTERM, note)
    return events


def _start(number: int, local: int, environment: Mapping[str, str], folder: Path) -> Rank:
    log = folder / f"{number}.json"
    own = {"RANK": str(number), "LOCAL_RANK": str(local), "SPPO_TERMINATION_LOG": str(log)}
    command = [sys.executable, *sys.orig_argv[1:]]
    return Rank(number=number, pid=os.posix_spawn(sys.executable, command, {**environment, **own}), log=log)


def _wait(ranks: Sequence[Rank], events: queue.SimpleQueue[int]) -> tuple[list[End], bool]:
    """The ends of all ranks in their order, and whether this process was told to end.

    When one rank fails, or this process is told to end, the others are ended too.
    """
    living = {rank.pid: rank for rank in ranks}
    ends: list[End] = []
    terminated = stopping = False
    patience: float | None = None
    while living:
        try:
            terminated |= events.get(timeout=patience) == signal.SIGTERM
        except queue.Empty:
            _signal(living, signal.SIGKILL)
        ends += _reap(living)
        if not stopping and (terminated or decisive(ends)):
            stopping, patience = True, GRACE_SECONDS
            _signal(living, signal.SIGTERM)
    return ends, terminated


def _signal(living: Mapping[int, Rank], number: signal.Signals) -> None:
    for pid in living:  # none of them is reaped yet, so each pid is still the rank's
        os.kill(pid, number)


def _reap(living: dict[int, Rank]) -> list[End]:
    """Take the ended ranks out of `living`. Process 1 of a pod also reaps what ranks left behind."""
    ends = []
    while living:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            break
        code = os.waitstatus_to_exitcode(status)
        if pid in living:
            ends.append(End(rank=living.pop(pid), exit_code=code if code >= 0 else 128 - code))
    return ends


def _result(end: End) -> dict[str, Any]:
    """What the rank wrote before it ended, or a sentence in its place."""
    if end.exit_code == 0 or end.exit_code in USER_FAULTS:
        written: dict[str, Any] = json.loads(end.rank.log.read_text("utf-8"))
        return written
    ended = f"rank {end.rank.number} ended with exit code {end.exit_code}"
    if end.exit_code == 128 + signal.SIGKILL:
        ended += " (SIGKILL): if its memory ran out, raise the memory limit or lower training.tokensPerMicroBatch"
    try:
        return {"error": json.loads(end.rank.log.read_text("utf-8"))["error"]}
    except (FileNotFoundError, ValueError, KeyError):  # it was killed, perhaps while it wrote
        return {"error": ended}


def _die_with_launcher() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ.get("SPPO_LAUNCHER", os.getppid())):  # it died before the line above
        os._exit(TERMINATED)
