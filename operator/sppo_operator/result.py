"""What a stage says at its end, by exit code and result, and on its way: the contract of the stages (DESIGN.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from sppo_operator.decide import Outcome
from sppo_operator.policy import TERMINATED, USER_FAULT

RESULT_BYTES = 4096
"""The kubelet cuts what is longer."""
KILLED = 128 + 9
LARGEST = 2**53 - 1
"""The largest number that the resource may hold."""
LOG_CHARACTERS = 400
LOG_LINES = 3
NOISE = re.compile(r"\s|\{|Traceback \(most recent call last\):|$")
"""Lines of a log that explain no failure: what a traceback quotes, progress as JSON, empty ones."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How an attempt ended."""

    outcome: Outcome
    exit_code: int | None
    """As a shell shows it: 128 + the signal's number for a process that was killed. None if no process decided it."""
    message: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    content_digest: str = ""
    model: str = ""
    """The folder of the trained model, relative to the run's."""
    failures: int = 1
    """How many of the retries a failure uses up."""


def end_of(return_code: int, result: bytes, log: str) -> End:
    """What the end of a stage means.

    `return_code` is negative for a signal, as of `subprocess`, or 128 + its number, as of a shell. `result` is what
    the stage wrote, or, from a pod that wrote nothing, the end of its log. `log` says where to read all of the log.
    """
    exit_code = 128 - return_code if return_code < 0 else return_code
    data = parsed(result)
    if exit_code == 0 and is_result(data):
        digest, model = data["contentDigest"], str(data.get("model", ""))
        return End(outcome=Outcome.SUCCEEDED, exit_code=0, metrics=data["metrics"], content_digest=digest, model=model)
    if exit_code == TERMINATED:
        return End(outcome=Outcome.DISRUPTED, exit_code=exit_code, message="stopped by SIGTERM")
    outcome = Outcome.USER_FAULT if exit_code in USER_FAULT else Outcome.FAILED
    return End(outcome=outcome, exit_code=exit_code, message=_why(exit_code, data, result, log))


def _why(exit_code: int, data: Mapping[str, Any], result: bytes, log: str) -> str:
    if exit_code == 0:
        return f"ended without a result of at most {RESULT_BYTES} bytes: see {log}"
    if isinstance(error := data.get("error"), str) and error:
        return error
    what = f"ended with exit code {exit_code}"
    if 128 < exit_code < 160:
        what = f"killed by signal {exit_code - 128}"
    if exit_code == KILLED:
        what += ", often for lack of memory"
    lines = "" if data else last_lines(result.decode(errors="replace"))
    return f"{what}; the end of its log: {lines}" if lines else f"{what}: see {log}"


def is_result(data: Mapping[str, Any]) -> bool:
    """Whether this is the result of a stage that is done, not that of one worker of several."""
    return isinstance(data.get("metrics"), dict) and isinstance(data.get("contentDigest"), str)


def last_lines(log: str) -> str:
    """The newest lines that may explain a failure, oldest first, within LOG_CHARACTERS."""
    lines: list[str] = []
    for line in reversed(log.splitlines()):
        if NOISE.match(line):
            continue
        if lines and (len(lines) == LOG_LINES or sum(map(len, lines)) + len(line) + 3 * len(lines) > LOG_CHARACTERS):
            break
        lines.insert(0, line.strip())
    return " | ".join(lines)[:LOG_CHARACTERS]


def progress_of(line: bytes) -> dict[str, Any] | None:
    """The progress that a log line reports, if the resource can hold it: any image may write anything."""
    if not line.startswith(b'{"progress"'):
        return None
    progress = parsed(line).get("progress")
    if not isinstance(progress, dict) or not {"done", "total", "unit"} <= progress.keys():
        return None
    if not (is_count(progress["done"]) and is_count(progress["total"])):
        return None
    report = {"done": int(progress["done"]), "total": int(progress["total"]), "unit": str(progress["unit"])}
    if is_count(progress.get("secondsLeft")):
        report["secondsLeft"] = int(progress["secondsLeft"])
    if isinstance(figures := progress.get("figures"), dict):
        report["figures"] = figures
    return report


def is_count(value: object) -> bool:
    return is_number(value) and 0 <= value <= LARGEST


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parsed(text: bytes) -> dict[str, Any]:
    """The JSON object that was written, empty for anything else."""
    try:
        data = json.loads(text) if len(text) <= RESULT_BYTES else None
    except (ValueError, RecursionError):  # torn, no JSON at all, or brackets in brackets
        return {}
    return data if isinstance(data, dict) else {}
