"""Commands, waiting, and the one error of this package."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path


class ClusterError(Exception):
    """The test cluster cannot be built, booted or used; the message says what is missing."""


def run(*command: str | Path, stdin: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """Standard output of a command; raises ClusterError with its last lines when it fails."""
    words = [str(word) for word in command]
    try:
        finished = subprocess.run(words, input=stdin, env=env, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is not there: is the node up, are its packages installed?") from error
    if finished.returncode:
        said = "\n".join((finished.stderr or finished.stdout).strip().splitlines()[-5:])
        raise ClusterError(f"{' '.join(words[:6])} ... ended with {finished.returncode}: {said}")
    return finished.stdout


def succeeds(*command: str | Path, env: Mapping[str, str] | None = None) -> bool:
    return subprocess.run([str(word) for word in command], env=env, capture_output=True, check=False).returncode == 0


def wait_until(condition: Callable[[], bool], *, seconds: float, failure: Callable[[], str]) -> None:
    """Asks every 0.1 s; raises ClusterError with `failure()` when the condition does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"{failure()} ({seconds:.0f} s)")
        time.sleep(0.1)
