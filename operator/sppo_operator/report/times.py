"""The report's account of time, GPUs and failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sppo_operator.decide import Outcome, Stage, Step
from sppo_operator.facts import Attempt, Record, Records, in_order
from sppo_operator.report.markup import paragraph, table
from sppo_operator.report.timeline import timeline
from sppo_operator.summary import duration, exact_duration

BAD = set(Outcome) - {Outcome.RUNNING, Outcome.SUCCEEDED}


def times(records: Records, numbers: Sequence[int], status: Mapping[str, Any], now: str) -> str:
    spent = timeline(records, now) + _table(records, numbers)
    return spent + (_gpu_table(status) or (paragraph(_no_gpus(records, status)) if spent else ""))


def gpu_seconds(status: Mapping[str, Any]) -> int:
    return sum(status.get("gpuSeconds", {}).values())


def failures(records: Records, status: Mapping[str, Any]) -> str:
    counted = {cause: number for cause, number in status.get("failures", {}).items() if number}
    rows = [
        (f"{step}, attempt {attempt.number}", attempt.outcome.value, _code(attempt), _lasted(attempt), attempt.message)
        for step in in_order(records)
        for attempt in records[step].newest
        if attempt.outcome in BAD
    ]
    if not rows and not counted:
        return paragraph("Nothing failed, and nothing was tried twice.")
    causes = ", ".join(f"{cause} {number}" for cause, number in counted.items())
    return paragraph(f"In the whole run, by cause: {causes}." if causes else "") + table(
        ("attempt", "outcome", "exit code", "lasted", "what it said"),
        rows,
        caption="Attempts that did not succeed",
        wordy=True,
    )


def _code(attempt: Attempt) -> str:
    return "" if attempt.exit_code is None else str(attempt.exit_code)


def _lasted(attempt: Attempt) -> str:
    return duration(attempt.seconds) if attempt.finished else ""


def _table(records: Records, numbers: Sequence[int]) -> str:
    rows = []
    for number in numbers:
        spent = [records.get(Step(number, stage), Record()).seconds for stage in Stage]
        rows.append((str(number), *map(_spent, spent), _spent(sum(spent))))
    sums = [sum(record.seconds for step, record in records.items() if step.stage is stage) for stage in Stage]
    if not sum(sums):
        return ""
    rows.append(("all", *map(_spent, sums), _spent(sum(sums))))
    titles = ("iteration", *(stage.value for stage in Stage), "together")
    return table(titles, rows, caption="Time at work in all attempts; stages may run side by side", total=True)


def _gpu_table(status: Mapping[str, Any]) -> str:
    spent: Mapping[str, int] = status.get("gpuSeconds", {})
    if not gpu_seconds(status):
        return ""
    row = ("GPU-seconds", *(f"{spent.get(stage.value, 0):,}" for stage in Stage), f"{gpu_seconds(status):,}")
    titles = ("", *(stage.value for stage in Stage), "together")
    return table(titles, [row], caption="GPUs requested, times the seconds that they were held, in the whole run")


def _no_gpus(records: Records, status: Mapping[str, Any]) -> str:
    if any(attempt.gpus for record in records.values() for attempt in record.newest):
        return "GPU-seconds are counted when an attempt ends."
    return f"No GPU was requested from Kubernetes{'' if 'finishTime' in status else ' so far'}."


def _spent(seconds: float) -> str:
    return exact_duration(seconds) if seconds else ""
