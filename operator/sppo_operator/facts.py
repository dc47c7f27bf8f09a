"""What has been recorded about a run's steps, and the figures that people ask about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sppo_operator.decide import Attempts, Outcome, Stage, Step, schedule

NEWEST_ATTEMPTS = 4


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of a step; times as the API server writes them, such as 2026-01-31T12:00:00Z."""

    number: int
    outcome: Outcome
    started: str
    finished: str | None = None
    exit_code: int | None = None
    message: str = ""
    image: str = ""
    """The trainer image that it ran."""
    evictions: int = 0
    """How often a queue took its place while it went on afterwards, or at its end."""
    gpus: int = 0
    """GPUs that its pods requested together."""
    active_seconds: int | None = None
    """How long its pods could run, in the stretches that are over; None on one machine, where nothing keeps it."""
    active_since: str | None = None
    """When the stretch that is not over began."""

    @property
    def seconds(self) -> float:
        """How long it was at work, 0 while it runs."""
        return self.seconds_at(datetime.fromisoformat(self.finished)) if self.finished else 0.0

    def seconds_at(self, now: datetime) -> float:
        """How long it was at work until its end or now; of one without recorded stretches, all of its time."""
        if self.active_seconds is None:
            since, until = self.started, datetime.fromisoformat(self.finished) if self.finished else now
        elif self.active_since:
            since, until = self.active_since, now
        else:
            return self.active_seconds
        stretch = (until - datetime.fromisoformat(since)).total_seconds()
        return (self.active_seconds or 0) + max(stretch, 0.0)  # clocks differ

    def paused(self, at: str) -> Attempt:
        """With the stretch that runs, if one does, ended at that time."""
        if self.active_since is None:
            return self
        stretch = max(int(seconds_between(self.active_since, at)), 0)  # clocks differ
        return replace(self, active_seconds=(self.active_seconds or 0) + stretch, active_since=None)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One step: the folded history that `decide` reads, the newest attempts, and what the step reported."""

    attempts: Attempts = field(default_factory=Attempts)
    newest: tuple[Attempt, ...] = ()
    """At most NEWEST_ATTEMPTS, oldest first."""
    first_started: str | None = None
    progress: Mapping[str, Any] | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)
    content_digest: str = ""
    model: str = ""
    """The folder of the trained model, relative to the run's; empty for other stages, and once the status has it."""

    def started(self, now: str, image: str = "") -> Record:
        attempts = self.attempts.started()
        attempt = Attempt(number=attempts.made, outcome=Outcome.RUNNING, started=now, image=image)
        newest = (*self.newest, attempt)[-NEWEST_ATTEMPTS:]
        return Record(attempts=attempts, newest=newest, first_started=self.first_started or now)

    def ended(
        self, outcome: Outcome, now: str, *, message: str = "", exit_code: int | None = None, failures: int = 1
    ) -> Record:
        attempt = self.newest[-1].paused(now)
        attempt = replace(attempt, outcome=outcome, finished=now, message=message, exit_code=exit_code)
        attempts = self.attempts.ended(outcome, message, failures)
        return replace(self, attempts=attempts, newest=(*self.newest[:-1], attempt), progress=None)

    def with_result(self, metrics: Mapping[str, Any], content_digest: str, model: str = "") -> Record:
        figures = {name: decimal(metrics[name]) for name in metrics}
        return replace(self, metrics=figures, content_digest=content_digest, model=model)

    def number(self, metric: str) -> float | None:
        """A metric as a number, None if the stage did not report it as a finite one."""
        return finite(self.metrics.get(metric))

    @property
    def finished(self) -> str | None:
        return self.newest[-1].finished if self.newest else None

    @property
    def seconds(self) -> float:
        """Time at work in those of the newest attempts that are over."""
        return sum(attempt.seconds for attempt in self.newest)

    def seconds_at(self, now: datetime) -> float:
        """Time at work in the newest attempts until now."""
        return sum(attempt.seconds_at(now) for attempt in self.newest)


Records = Mapping[Step, Record]


def in_order(records: Records) -> list[Step]:
    """The recorded steps in the order of the schedule."""
    newest = max((step.iteration for step in records), default=0)
    return [step for step in schedule(newest) if step in records]


@dataclass(frozen=True, kw_only=True)
class WinRate:
    """A win rate with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def win_rate(records: Records, iteration: int, metric: str = "winRateBase") -> WinRate | None:
    """A win rate that the iteration's evaluation reported; None as long as it has not been measured."""
    record = records.get(Step(iteration, Stage.EVALUATE), Record())
    value, low, high = (record.number(f"{metric}{end}") for end in ("", "Low", "High"))
    if value is None or low is None or high is None:
        return None
    return WinRate(value=value, low=low, high=high)


def best_iteration(records: Records) -> int | None:
    """The iteration with the highest win rate against the base; the earlier one of equals."""
    rates = {at.iteration: win_rate(records, at.iteration) for at in records if at.iteration > 0}
    measured = {iteration: rate.value for iteration, rate in rates.items() if rate}
    return max(sorted(measured), key=measured.__getitem__, default=None)


def falling_iteration(records: Records) -> int | None:
    """The newest trained iteration if the log-ratios of best AND worst are negative and fell since the one before.

    Then training only lowers likelihoods: eta is too large for a restoring force (DESIGN.md, the method).
    """
    trained = sorted(at.iteration for at, record in records.items() if at.stage is Stage.TRAIN and record.metrics)
    if len(trained) < 2:
        return None
    before, newest = (records[Step(iteration, Stage.TRAIN)] for iteration in trained[-2:])
    for metric in ("logRatioBest", "logRatioWorst"):
        old, new = before.number(metric), newest.number(metric)
        if old is None or new is None or not (new < 0 and new < old):
            return None
    return trained[-1]


def timestamp(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def finite(value: Any) -> float | None:
    """What an image reported as a number, None for anything else: it may report NaN, infinity or text."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # not there, or no number
        return None
    return number if math.isfinite(number) else None


def decimal(value: Any) -> str:
    """A figure as the resource holds it: a decimal string."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
