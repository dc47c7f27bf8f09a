"""What the operator measures about itself: one `Metrics` per process, handed to those who measure.

docs/metrics.md describes every one of them; run_metrics.py has the series of the runs.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from sppo_operator import __version__

WAIT_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60)
PASS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)
CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
RESULTS = ("done", "retried", "failed")
FAULT = "Fault"
"""The reason of an error that is a bug, or a pass that took too long; others have the class of their ApiError."""


class Metrics:
    """The operator's own instruments, in a registry of their own."""

    def __init__(self) -> None:
        # The times at which series began would be half as many series again, and nobody asks for them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._process()
        self._queue()
        self._passes()
        self._calls()
        self._watches()

    def _process(self) -> None:
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        info = Gauge(
            "sppo_operator_info", "Always 1; the version of the operator.", ["version"], registry=self.registry
        )
        info.labels(__version__).set(1)
        self.leader = Gauge("sppo_operator_leader", "Whether this process leads.", registry=self.registry)

    def _queue(self) -> None:
        prefix = "sppo_operator_workqueue"
        self.queue_depth = Gauge(f"{prefix}_depth", "Runs that wait to be looked at.", registry=self.registry)
        self.queue_adds = Counter(f"{prefix}_adds", "Runs that were put into the work queue.", registry=self.registry)
        self.queue_retries = Counter(
            f"{prefix}_retries", "Runs that are looked at again after an error.", registry=self.registry
        )
        self.queue_wait = Histogram(
            f"{prefix}_wait_seconds",
            "How long a run waited in the work queue.",
            buckets=WAIT_BUCKETS,
            registry=self.registry,
        )

    def _passes(self) -> None:
        self._passes_made = Histogram(
            "sppo_operator_reconcile_seconds",
            "How long one look at a run took, by how it ended.",
            ["result"],
            buckets=PASS_BUCKETS,
            registry=self.registry,
        )
        for result in RESULTS:
            self._passes_made.labels(result)
        self._pass_errors = Counter(
            "sppo_operator_reconcile_errors",
            "Looks at a run that ended in an error, by the error's class.",
            ["reason"],
            registry=self.registry,
        )
        self._pass_errors.labels(FAULT)

    def looked(self, seconds: float, result: str, reason: str) -> None:
        """A look at a run ended; `reason` is empty without an error."""
        self._passes_made.labels(result).observe(seconds)
        if reason:
            self._pass_errors.labels(reason).inc()

    def _calls(self) -> None:
        self._calls_made = Counter(
            "sppo_operator_api_calls",
            "Calls of the API server, without watches; code 0 means no answer.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self._call_seconds = Histogram(
            "sppo_operator_api_call_seconds",
            "How long the API server took to answer.",
            ["verb"],
            buckets=CALL_BUCKETS,
            registry=self.registry,
        )

    def called(self, verb: str, resource: str, status: int, seconds: float) -> None:
        """A call of the API server was answered, or, with status 0, was not."""
        self._calls_made.labels(verb, resource, str(status)).inc()
        self._call_seconds.labels(verb).observe(seconds)

    def _watches(self) -> None:
        self.watch_age = Gauge(
            "sppo_operator_watch_age_seconds",
            "Time since a watch delivered something, or a LIST found that it had missed nothing.",
            ["resource"],
            registry=self.registry,
        )
        self.watch_missed = Counter(
            "sppo_operator_watch_missed",
            "Runs of which a LIST showed something that no watch had delivered.",
            ["resource"],
            registry=self.registry,
        )
