"""The status of a run from what was recorded, and back: pure functions, the shape of the CRD.

The status holds facts that cannot be observed any more once a process or a Job is gone, and what people want to read.
`phase` and `summary` are derived last and read by nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sppo_operator.conditions import NOTHING, Holds, conditions, merged
from sppo_operator.decide import Action, Attempts, Fail, Finish, GiveUp, Outcome, Stage, Step, schedule
from sppo_operator.facts import Attempt, Record, Records, best_iteration, decimal, win_rate
from sppo_operator.render import CONTRACT_VERSION
from sppo_operator.spec import Run
from sppo_operator.summary import phase_of, summary_of

DETAILED_ITERATIONS = 4
"""Older iterations keep their win rates only, which bounds the status (256 KiB at 100 iterations)."""
# The CRD's bounds on what stages report.
MESSAGE_CHARACTERS = 512
METRICS, METRIC_CHARACTERS = 32, 64
FIGURES, FIGURE_CHARACTERS = 8, 32
# Its bounds on what users and file systems choose.
RETRY_CHARACTERS = 256
IMAGE_CHARACTERS = 256
POLICY_CHARACTERS = 400
REPORT_CHARACTERS = 4096
WIN_RATES = {
    "base": "winRateBase",
    "previous": "winRatePrevious",
    "secondBase": "secondWinRateBase",
    "secondPrevious": "secondWinRatePrevious",
}
"""The status's names, and the metrics of `evaluate` that they come from."""
EVALUATED = {"stage": Stage.EVALUATE.value, "state": "Succeeded"}
"""All that an older iteration keeps of an evaluation that reported no win rate, as images of users may."""
DONE = Attempts(made=1, last=Outcome.SUCCEEDED)
"""What is left of the attempts of a stage whose details were dropped."""
CAUSES = {
    Outcome.USER_FAULT: "user",
    Outcome.FAILED: "application",
    Outcome.DISRUPTED: "disruption",
    Outcome.VANISHED: "disruption",
    Outcome.EVICTED: "eviction",
}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the executor knows, beyond the spec and the last decision."""

    records: Records
    failures: Mapping[str, int] = field(default_factory=dict)
    """Attempts that ended badly in the whole run, by CAUSES."""
    gpu_seconds: Mapping[str, int] = field(default_factory=dict)
    """What the attempts that ended requested in the whole run, by stage."""
    policies: Mapping[int, str] = field(default_factory=dict)
    """Folder or URI of the model that an iteration trained."""
    report: str = ""
    image: str = ""
    """The trainer image that the run keeps when the operator is upgraded."""
    holds: Holds = NOTHING


def status_of(run: Run, facts: Facts, actions: tuple[Action, ...], old: Mapping[str, Any], now: str) -> dict[str, Any]:
    """The whole status; `old` is the one before, which fixed the times."""
    records = facts.records
    current = conditions(records, actions, facts.holds)
    status: dict[str, Any] = {
        "observedGeneration": run.generation,
        "phase": phase_of(records, actions, facts.holds),
        "summary": summary_of(run, records),
        "conditions": merged(old.get("conditions", ()), current, run.generation, now),
        "iterations": _iterations(run, facts, actions),
        "bestIteration": best_iteration(records),
        "failures": dict(facts.failures),
        "gpuSeconds": {stage: seconds for stage, seconds in facts.gpu_seconds.items() if seconds},
        "image": facts.image,
        "contractVersion": CONTRACT_VERSION,
        "digest": run.digest(),
        "observedRetry": retry_of(run),
        "startTime": old.get("startTime", now),
        "finishTime": old.get("finishTime", now) if isinstance(actions[-1], Finish | Fail) else None,
        "report": _if_short(facts.report, REPORT_CHARACTERS),
    }
    return _compact(status)


def retry_of(run: Run) -> str:
    """What counts of the annotation sppo.dev/retry: as much as the status has room for."""
    return run.retry[:RETRY_CHARACTERS]


def records_of(resource: Mapping[str, Any]) -> dict[Step, Record]:
    """What the status says about every step that was ever started."""
    records: dict[Step, Record] = {}
    for iteration in resource.get("status", {}).get("iterations", ()):
        number = iteration["number"]
        stages = iteration.get("stages", ())
        if all(stage == EVALUATED for stage in stages):
            records |= _finished_long_ago(number, iteration)
        for stage in stages:
            if stage.get("attempts"):
                records[Step(number, Stage(stage["stage"]))] = _record(stage)
            elif stage["state"] == "Succeeded":  # its attempts were dropped before its evaluation began
                records[Step(number, Stage(stage["stage"]))] = Record(attempts=DONE)
    return records


def policies_of(status: Mapping[str, Any]) -> dict[int, str]:
    """Where the status says that the trained models are, by iteration."""
    return {shown["number"]: shown["policy"] for shown in status.get("iterations", ()) if "policy" in shown}


def _iterations(run: Run, facts: Facts, actions: tuple[Action, ...]) -> list[dict[str, Any]]:
    newest = max((step.iteration for step in facts.records), default=0)
    return [_iteration(run, number, facts, actions, newest) for number in range(newest + 1)]


def _iteration(run: Run, number: int, facts: Facts, actions: tuple[Action, ...], newest: int) -> dict[str, Any]:
    steps = [step for step in schedule(number) if step.iteration == number]
    rates = {key: win_rate(facts.records, number, metric) for key, metric in WIN_RATES.items()}
    shown: dict[str, Any] = {
        "number": number,
        "policy": _if_short(facts.policies.get(number, ""), POLICY_CHARACTERS),
        "winRate": {
            key: {"mean": decimal(rate.value), "low": decimal(rate.low), "high": decimal(rate.high)}
            for key, rate in rates.items()
            if rate is not None
        },
    }
    recorded = [facts.records[step] for step in steps if step in facts.records]
    finished = all(record.attempts.last is Outcome.SUCCEEDED for record in recorded)
    if number == 0 or number > newest - DETAILED_ITERATIONS or not finished:
        shown["stages"] = [_stage(run, step, facts, actions) for step in steps]
    elif Step(number, Stage.EVALUATE) in facts.records and not shown["winRate"]:
        shown["stages"] = [EVALUATED]  # without it the evaluation would begin again
    return _compact(shown)


def _stage(run: Run, step: Step, facts: Facts, actions: tuple[Action, ...]) -> dict[str, Any]:
    record = facts.records.get(step, Record())
    state = _state(step, record, facts.holds, actions)
    return _compact(
        {
            "stage": step.stage.value,
            "state": state,
            "job": run.job_name(step, record.attempts.made) if record.newest else None,
            "attempts": [_attempt(attempt) for attempt in record.newest],
            "charged": record.attempts.charged or None,
            "forgiven": (record.newest and record.attempts.last is None) or None,
            "startTime": record.first_started,
            "finishTime": record.finished if state in ("Succeeded", "Failed", "GivenUp") else None,
            "progress": _progress(record.progress),
            "metrics": {name: value[:METRIC_CHARACTERS] for name, value in list(record.metrics.items())[:METRICS]},
            "contentDigest": record.content_digest,
        }
    )


def _state(step: Step, record: Record, holds: Holds, actions: tuple[Action, ...]) -> str:
    if record.attempts.last is Outcome.RUNNING:
        return "Suspended" if holds.suspended else "Queued" if step in holds.queued else "Running"
    if record.attempts.last is Outcome.SUCCEEDED:
        return "Succeeded"
    for action in actions:
        match action:
            case Fail(failed) if failed == step:
                return "Failed"
            case GiveUp(given_up) if given_up == step:
                return "GivenUp"
    return "Pending"


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return _compact(
        {
            "number": attempt.number,
            "outcome": attempt.outcome.value,
            "exitCode": attempt.exit_code,
            "message": attempt.message[:MESSAGE_CHARACTERS],
            "image": attempt.image[:IMAGE_CHARACTERS],
            "evictions": attempt.evictions or None,
            "gpus": attempt.gpus or None,
            "activeSince": attempt.active_since,
            "activeSeconds": attempt.active_seconds,
            "startTime": attempt.started,
            "finishTime": attempt.finished,
        }
    )


def _progress(progress: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if progress is None:
        return None
    figures = list(progress.get("figures", {}).items())[:FIGURES]
    left = progress.get("secondsLeft")
    return _compact(
        {
            "done": int(progress["done"]),
            "total": int(progress["total"]),
            "unit": str(progress["unit"])[:FIGURE_CHARACTERS],
            "secondsLeft": None if left is None else int(left),
            "figures": {name: decimal(value)[:FIGURE_CHARACTERS] for name, value in figures},
        }
    )


def attempts_of(stage: Mapping[str, Any]) -> tuple[Attempt, ...]:
    """What the status says about a stage's newest attempts."""
    return tuple(
        Attempt(
            number=attempt["number"],
            outcome=Outcome(attempt["outcome"]),
            started=attempt["startTime"],
            finished=attempt.get("finishTime"),
            exit_code=attempt.get("exitCode"),
            message=attempt.get("message", ""),
            image=attempt.get("image", ""),
            evictions=attempt.get("evictions", 0),
            gpus=attempt.get("gpus", 0),
            active_seconds=attempt.get("activeSeconds"),
            active_since=attempt.get("activeSince"),
        )
        for attempt in stage.get("attempts", ())
    )


def _record(stage: Mapping[str, Any]) -> Record:
    newest = attempts_of(stage)
    last = newest[-1]
    attempts = Attempts(made=last.number, charged=stage.get("charged", 0), last=last.outcome, message=last.message)
    return Record(
        attempts=attempts.renewed() if stage.get("forgiven") else attempts,
        newest=newest,
        first_started=stage["startTime"],
        metrics=stage.get("metrics", {}),
        content_digest=stage.get("contentDigest", ""),
    )


def _finished_long_ago(number: int, iteration: Mapping[str, Any]) -> dict[Step, Record]:
    rates = iteration.get("winRate", {})
    metrics = {
        f"{WIN_RATES[key]}{end}": rate[name]
        for key, rate in rates.items()
        for end, name in (("", "mean"), ("Low", "low"), ("High", "high"))
    }
    records = {Step(number, stage): Record(attempts=DONE) for stage in (Stage.GENERATE, Stage.SCORE, Stage.TRAIN)}
    # Without a win rate its evaluation is still to come: evaluations may lag behind.
    return records | ({Step(number, Stage.EVALUATE): Record(attempts=DONE, metrics=metrics)} if metrics else {})


def _if_short(path: str, characters: int) -> str | None:
    """A path that the CRD has room for: one that was cut would name another place."""
    return path if len(path) <= characters else None


def _compact(data: dict[str, Any]) -> dict[str, Any]:
    """Without what is not there: the API server drops nulls, and empty maps only take room."""
    return {key: value for key, value in data.items() if value not in (None, "", {}, [])}
