"""The rows of the fleet's dashboard about the operator."""

from __future__ import annotations

from monitoring.colours import GREEN, GREY
from monitoring.expressions import current, quantile
from monitoring.panels import (
    Drawn,
    bars,
    coloured,
    columns,
    lines,
    over_time,
    rows,
    timeline,
    unit,
)

OPERATOR = 'namespace=~"$operator"'
INTERVAL = "$__rate_interval"


def work() -> list[Drawn]:
    wait, look = "sppo_operator_workqueue_wait_seconds", "sppo_operator_reconcile_seconds"
    return [
        lines(
            "Work queue",
            "Runs that wait to be looked at.",
            over_time(current("sppo_operator_workqueue_depth", OPERATOR), "waiting"),
            size=(5, 8),
            unit="none",
        ),
        _took("Wait in the work queue", "How long a run waited until it was looked at.", wait),
        lines(
            "Looks at runs",
            "Per second, by how they ended: done, retried after an error of the API server, failed by a fault of the "
            "operator.",
            over_time(_per_second(f"{look}_count", "result"), "{{result}}"),
            size=(5, 8),
            unit="ops",
            stacked=True,
        ),
        _took("Time of a look at a run", "From reading what is there to writing the status.", look),
        lines(
            "Looks that ended in an error",
            "Per second, by the class of the error. ConflictError is ordinary; Fault is a bug: please report it.",
            over_time(_per_second("sppo_operator_reconcile_errors_total", "reason"), "{{reason}}"),
            size=(4, 8),
            unit="ops",
        ),
    ]


def _took(title: str, description: str, histogram: str) -> Drawn:
    """How long it takes mostly, and at worst."""
    shares = {"p50": 0.5, "p99": 0.99}
    queries = [over_time(quantile(share, histogram, OPERATOR), name) for name, share in shares.items()]
    return lines(title, description, *queries, size=(5, 8), unit="s")


def calls() -> list[Drawn]:
    made, missed = "sppo_operator_api_calls_total", "sppo_operator_watch_missed_total"
    return [
        lines(
            "API calls by code",
            "Per second, without watches. Code 0 is no answer, 409 an ordinary conflict.",
            over_time(_per_second(made, "code"), "{{code}}"),
            size=(5, 8),
            unit="ops",
            stacked=True,
        ),
        lines(
            "API calls by resource",
            "Per second, without watches.",
            over_time(_per_second(made, "verb", "resource"), "{{verb}} {{resource}}"),
            size=(5, 8),
            unit="ops",
            stacked=True,
        ),
        lines(
            "Time of an API call, p99",
            "How long the API server took to answer.",
            over_time(quantile(0.99, "sppo_operator_api_call_seconds", OPERATOR, "verb"), "{{verb}}"),
            size=(5, 8),
            unit="s",
        ),
        lines(
            "Age of the leader's watches",
            "Time since a watch delivered something or a list confirmed it, as it does every minute.",
            over_time(current("sppo_operator_watch_age_seconds", OPERATOR, "resource"), "{{resource}}"),
            size=(5, 8),
            unit="s",
        ),
        bars(
            "Missed by a watch",
            "Runs of which a list showed something that no watch had delivered, which mends it. After three such lists "
            "in a row the operator starts anew.",
            over_time(f"sum by (resource) (increase({missed}{{{OPERATOR}}}[{INTERVAL}]))", "{{resource}}"),
            size=(4, 8),
            unit="none",
        ),
    ]


def processes() -> list[Drawn]:
    process = f"and on (namespace, pod) sppo_operator_info{{{OPERATOR}}}"
    return [
        timeline(
            "Who leads",
            "The leader among the replicas. A change leaves a gap of some 15 seconds.",
            over_time(f"max by (namespace, pod) (sppo_operator_leader{{{OPERATOR}}})", "{{pod}}"),
            states={0: ("waits", GREY), 1: ("leads", GREEN)},
            size=(6, 8),
        ),
        lines(
            "Memory",
            "Resident memory by replica.",
            over_time(f"process_resident_memory_bytes {process}", "{{pod}}"),
            size=(6, 8),
            unit="bytes",
        ),
        lines(
            "CPU",
            "Cores used, by replica.",
            over_time(f"rate(process_cpu_seconds_total[{INTERVAL}]) {process}", "{{pod}}"),
            size=(6, 8),
        ),
        columns(
            "Replicas",
            "The version of each, and since when it runs.",
            {
                "_": rows(f"max by (namespace, pod, version) (sppo_operator_info{{{OPERATOR}}})"),
                "leads": rows(f"max by (namespace, pod) (sppo_operator_leader{{{OPERATOR}}})"),
                "age": rows(f"max by (namespace, pod) (time() - process_start_time_seconds {process})"),
            },
            size=(6, 8),
            looks={"age": unit("s"), "leads": coloured({"0": GREY, "1": GREEN})},
            labels=["namespace", "pod", "version"],
            sort_by="pod",
        ),
    ]


def _per_second(counter: str, *labels: str) -> str:
    """Of all replicas together."""
    return f"sum by ({', '.join(labels)}) (rate({counter}{{{OPERATOR}}}[{INTERVAL}]))"
