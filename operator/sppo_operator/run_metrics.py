"""The series of the runs, from their resources alone: pure, so a deleted run's are gone at the next scrape.

What a user's image reports is text in the status and may be anything; what is no finite number has no series.
docs/metrics.md describes every family and says how many series one run can have.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from sppo_operator.decide import Outcome
from sppo_operator.facts import finite
from sppo_operator.objects import Object
from sppo_operator.status import CAUSES, DETAILED_ITERATIONS, WIN_RATES, attempts_of

COUNT_LAG_SECONDS = 30
"""GPU-seconds of a running attempt count until so long ago: its end may be known late, and no counter may fall."""
NEW = "New"
"""The phase of a run that the operator has not looked at yet."""
RATE_LABELS = {
    key: (key.removeprefix("second").lower(), "second" if key.startswith("second") else "training") for key in WIN_RATES
}
"""The labels against and oracle, by the status's names."""
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What reading a resource raises that another version of the CRD let through."""
SPEED = "tokensPerSecond"
FIGURE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")

Labels = tuple[str, ...]
Series = tuple[str, Labels, float | None]
"""Family without the prefix, label values, value; None has no series."""


class Family(NamedTuple):
    labels: str
    help: str
    counter: bool = False


STAGE = "iteration stage"
FAMILIES: dict[str, Family] = {
    "info": Family("image policy uid", "Always 1; the trainer image, the policy to improve and the uid of a run."),
    "created_timestamp_seconds": Family("", "When the run was created."),
    "start_timestamp_seconds": Family("", "When the operator first saw the run."),
    "finish_timestamp_seconds": Family("", "When the run succeeded or failed."),
    "phase": Family("phase", "Always 1; what the run is doing."),
    "condition": Family("condition status reason", "Always 1; a condition of the run as it is now."),
    "iteration": Family("", "The newest iteration that has begun."),
    "iterations": Family("", "How many iterations are planned."),
    "best_iteration": Family("", "The iteration whose policy has the highest win rate against the base."),
    "retries_limit": Family("", "How many failures of its own a stage may have."),
    "failures": Family("cause", "Attempts that ended badly.", counter=True),
    "gpu_seconds": Family("stage", "GPU-seconds that were requested while pods could run.", counter=True),
    "stage_state": Family(f"{STAGE} state", "Always 1; the state of a stage."),
    "stage_start_timestamp_seconds": Family(STAGE, "When the stage's first attempt began."),
    "stage_finish_timestamp_seconds": Family(STAGE, "When the stage ended."),
    "stage_duration_seconds": Family(STAGE, "Time at work in the newest four attempts, a running one included."),
    "stage_attempts": Family(STAGE, "Attempts made."),
    "stage_charged_failures": Family(STAGE, "Failures so far that count against the limit of retries."),
    "stage_progress_ratio": Family(STAGE, "How much of a running stage is done."),
    "stage_remaining_seconds": Family(STAGE, "Estimated time until a running stage is done."),
    "stage_figure": Family(f"{STAGE} figure", "A figure that a running stage reports, such as the loss of a step."),
    "stage_tokens_per_second": Family(STAGE, "Tokens sampled or trained per second, as the stage reports it."),
    "win_rate": Family("iteration against oracle", "Held-out win rate of the iteration's policy."),
    "win_rate_low": Family("iteration against oracle", "Lower end of the win rate's 95 % interval."),
    "win_rate_high": Family("iteration against oracle", "Upper end of the win rate's 95 % interval."),
    "loss_over_eta2": Family("iteration", "Mean training loss, divided by eta squared."),
    "log_ratio_nats": Family("iteration role", "Mean log-ratio of the best or worst responses after training."),
    "kl_nats": Family("iteration", "KL divergence of the policy from the base, per response."),
    "pass_ratio": Family(STAGE, "Share of the responses that the preference passes."),
    "response_tokens": Family(STAGE, "Mean length of a response in tokens."),
    "cut_ratio": Family(STAGE, "Share of the responses that were cut at the limit of tokens."),
}
"""The families of a single run, without their prefix sppo_run_; all have the labels namespace and run."""


def families(
    resources: Iterable[Object], now: float, unreadable: Callable[[Object, Exception], None]
) -> Iterator[Metric]:
    """All series of these runs; `now` is in seconds since 1970. A run that is `unreadable` has none."""
    found: defaultdict[str, list[tuple[Labels, float]]] = defaultdict(list)
    phases: Counter[tuple[str, str]] = Counter()
    for resource in resources:
        run = (resource["metadata"]["namespace"], resource["metadata"]["name"])
        try:
            phase, series = _phase(resource), list(series_of(resource, now))
        except UNREADABLE as error:
            unreadable(resource, error)
            continue
        phases[run[0], phase] += 1
        for name, labels, value in series:
            if (number := finite(value)) is not None:
                found[name].append(((*run, *labels), number))
    runs = GaugeMetricFamily("sppo_runs", "Runs by what they are doing.", labels=["namespace", "phase"])
    for (namespace, phase), count in phases.items():
        runs.add_metric([namespace, phase], count)
    yield runs
    # One after the other: the library's samples have a dictionary each.
    for name, family in FAMILIES.items():
        yield _metric(name, family, found.pop(name, []))


def series_of(resource: Object, now: float) -> Iterator[Series]:
    """The series of one run, without the labels that name it."""
    status = resource.get("status", {})
    iterations = sorted(status.get("iterations", ()), key=lambda iteration: int(iteration["number"]))
    yield from _run(resource, status, iterations)
    yield from _gpu_seconds(status, iterations, now)
    detailed = iterations[:1] + iterations[1:][-DETAILED_ITERATIONS:]
    # The newest policy is measured against the best one, however long ago that was.
    rated = {status.get("bestIteration"), *(iteration["number"] for iteration in detailed)}
    for iteration in iterations:
        if iteration["number"] in rated:
            yield from _win_rates(str(iteration["number"]), iteration.get("winRate", {}))
    for iteration in detailed:
        number = str(iteration["number"])
        for stage in iteration.get("stages", ()):
            at = (number, stage["stage"])
            yield "stage_state", (*at, stage["state"]), 1.0
            if stage.get("attempts"):
                yield from _attempts(at, stage, now)
            if stage["state"] == "Running":
                yield from _progress(at, stage.get("progress", {}))
            else:
                yield from _results(at, stage.get("metrics", {}))


def _metric(name: str, family: Family, found: list[tuple[Labels, float]]) -> Metric:
    kind = CounterMetricFamily if family.counter else GaugeMetricFamily
    metric = kind(f"sppo_run_{name}", family.help, labels=["namespace", "run", *family.labels.split()])
    for labels, value in found:
        metric.add_metric(labels, value)
    return metric


def _phase(resource: Object) -> str:
    return str(resource.get("status", {}).get("phase", NEW))


def _run(resource: Object, status: Object, iterations: list[Object]) -> Iterator[Series]:
    metadata, spec = resource["metadata"], resource["spec"]
    image = spec.get("image") or status.get("image", "")
    yield "info", (image, spec["model"]["source"], metadata["uid"]), 1.0
    yield "created_timestamp_seconds", (), _moment(metadata["creationTimestamp"])
    yield "start_timestamp_seconds", (), _moment(status.get("startTime"))
    yield "finish_timestamp_seconds", (), _moment(status.get("finishTime"))
    yield "phase", (_phase(resource),), 1.0
    for condition in status.get("conditions", ()):
        yield "condition", (condition["type"], condition["status"], condition["reason"]), 1.0
    yield "iterations", (), finite(spec["iterations"])
    yield "retries_limit", (), finite(spec["retries"]["limit"])
    if iterations:
        yield "iteration", (), finite(iterations[-1]["number"])
    yield "best_iteration", (), finite(status.get("bestIteration"))
    for cause in dict.fromkeys(CAUSES.values()):
        yield "failures", (cause,), float(status.get("failures", {}).get(cause, 0))


def _gpu_seconds(status: Object, iterations: list[Object], now: float) -> Iterator[Series]:
    """What ended is summed in the status; what runs is added here, with every iteration that has running attempts."""
    seconds: defaultdict[str, float] = defaultdict(float, status.get("gpuSeconds", {}))
    until = _utc(now) - timedelta(seconds=COUNT_LAG_SECONDS)
    for iteration in iterations:
        for stage in iteration.get("stages", ()):
            for attempt in attempts_of(stage):
                # One without recorded stretches adds nothing at its end either.
                if attempt.gpus and attempt.outcome is Outcome.RUNNING and attempt.active_seconds is not None:
                    seconds[stage["stage"]] += attempt.gpus * attempt.seconds_at(until)
    for name, value in seconds.items():
        yield "gpu_seconds", (name,), value


def _attempts(at: Labels, stage: Object, now: float) -> Iterator[Series]:
    attempts = attempts_of(stage)
    yield "stage_start_timestamp_seconds", at, _moment(stage.get("startTime"))
    yield "stage_finish_timestamp_seconds", at, _moment(stage.get("finishTime"))
    yield "stage_duration_seconds", at, sum(attempt.seconds_at(_utc(now)) for attempt in attempts)
    yield "stage_attempts", at, float(attempts[-1].number)
    yield "stage_charged_failures", at, float(stage.get("charged", 0))


def _progress(at: Labels, progress: Object) -> Iterator[Series]:
    done, total = finite(progress.get("done")), finite(progress.get("total"))
    if done is not None and total:
        yield "stage_progress_ratio", at, done / total
    yield "stage_remaining_seconds", at, finite(progress.get("secondsLeft"))
    for name, value in progress.get("figures", {}).items():
        if name == SPEED:
            yield "stage_tokens_per_second", at, finite(value)
        elif FIGURE_NAME.fullmatch(name):
            yield "stage_figure", (*at, name), finite(value)


def _results(at: Labels, metrics: Object) -> Iterator[Series]:
    """What a stage reported at its end."""
    iteration, stage = at

    def reported(name: str) -> float | None:
        return finite(metrics.get(name))

    if stage == "train":
        yield "loss_over_eta2", (iteration,), reported("lossOverEta2")
        yield "log_ratio_nats", (iteration, "best"), reported("logRatioBest")
        yield "log_ratio_nats", (iteration, "worst"), reported("logRatioWorst")
    if stage == "evaluate":
        yield "kl_nats", (iteration,), reported("klPerResponse")
    if stage in ("score", "evaluate"):
        yield "pass_ratio", at, reported("passRate")
    if stage in ("generate", "evaluate"):
        yield "response_tokens", at, reported("meanTokens")
    if stage == "generate":
        yield "cut_ratio", at, reported("cutShare")
    if SPEED in metrics:
        yield "stage_tokens_per_second", at, reported(SPEED)


def _win_rates(iteration: str, rates: Object) -> Iterator[Series]:
    for key, labels in RATE_LABELS.items():
        for family, name in (("win_rate", "mean"), ("win_rate_low", "low"), ("win_rate_high", "high")):
            yield family, (iteration, *labels), finite(rates.get(key, {}).get(name))


def _moment(text: Any) -> float | None:
    """Seconds since 1970 of a time in RFC 3339."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError, OverflowError):  # not there, or no time that Python knows
        return None


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
