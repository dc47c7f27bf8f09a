"""What has been recorded about a run's steps, and the figures that people ask about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sppo_operator.decide import Attempts, Outcome, Stage, Step


@dataclass(frozen=True, kw_only=True)
class Record:
    """One step: the folded history of its attempts, and the particulars of the last of them."""

    attempts: Attempts = Attempts()
    job: str = ""
    started: str | None = None
    ended: str | None = None
    """Times as the API server writes them: 2026-01-31T12:00:00Z."""
    exit_code: int | None = None
    progress: Mapping[str, Any] | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)
    content_digest: str = ""

    def with_start(self, job: str, now: str) -> Record:
        return Record(attempts=self.attempts.started(), job=job, started=now)

    def with_end(self, outcome: Outcome, now: str, *, message: str = "", exit_code: int | None = None) -> Record:
        return replace(self, attempts=self.attempts.ended(outcome, message), ended=now, exit_code=exit_code)

    def with_result(self, metrics: Mapping[str, Any], content_digest: str) -> Record:
        return replace(self, metrics={name: decimal(metrics[name]) for name in metrics}, content_digest=content_digest)

    def number(self, metric: str) -> float | None:
        """A metric as a number, None if the stage did not report it."""
        text = self.metrics.get(metric)
        try:
            return None if text is None else float(text)
        except ValueError:
            return None

    @property
    def seconds(self) -> float | None:
        """How long the last attempt took, None while it runs."""
        if self.started is None or self.ended is None:
            return None
        return (datetime.fromisoformat(self.ended) - datetime.fromisoformat(self.started)).total_seconds()


Records = Mapping[Step, Record]


@dataclass(frozen=True, kw_only=True)
class WinRate:
    """A win rate with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def win_rate(records: Records, iteration: int, against: str) -> WinRate | None:
    """Against Base or Previous; None as long as the iteration has not been evaluated."""
    record = records.get(Step(iteration, Stage.EVALUATE), Record())
    value, low, high = (record.number(f"winRate{against}{end}") for end in ("", "Low", "High"))
    if value is None or low is None or high is None:
        return None
    return WinRate(value=value, low=low, high=high)


def best_iteration(records: Records) -> int | None:
    """The iteration with the highest win rate against the base; the earlier one of equals."""
    rates = {at.iteration: win_rate(records, at.iteration, "Base") for at in records if at.stage is Stage.EVALUATE}
    measured = {iteration: rate.value for iteration, rate in rates.items() if rate and iteration > 0}
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


def decimal(value: Any) -> str:
    """A figure as the resource holds it: a decimal string."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
