"""The dashboard of all runs and of the operator."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Row

from monitoring import run
from monitoring.colours import GREEN, GREY, ORANGE, PHASES, RED
from monitoring.expressions import current, newest_win_rate, quantile
from monitoring.panels import (
    Drawn,
    at_once,
    bars,
    coloured,
    columns,
    grid,
    leading_to,
    lines,
    number,
    over_time,
    rows,
    timeline,
    unit,
)

UID = "sppo-fleet"
TITLE = "SPPO / Fleet and operator"
DESCRIPTION = "All SPPORuns, and the operator that carries them out."
RUNS = 'namespace=~"$namespace"'
OPERATOR = 'namespace=~"$operator"'
FIRING = 'ALERTS{alertname=~"SPPO.+",alertstate="firing"}'
INTERVAL = "$__rate_interval"


def contents() -> list[Drawn | Row]:
    return [
        *_headline(),
        Row("Runs"),
        *_runs(),
        Row("Operator: work"),
        *_work(),
        Row("Operator: API server and watches"),
        *_calls(),
        Row("Operator: processes"),
        *_processes(),
    ]


def _headline() -> list[Drawn]:
    return [
        number(
            "Runs under way",
            "Runs that have neither succeeded nor failed, those that wait or are suspended included.",
            at_once(_count('phase!~"Succeeded|Failed"')),
            at=grid(4, 4),
        ),
        number(
            "Failed runs",
            "Runs that wait for somebody to mend the cause, retry or delete them.",
            at_once(_count('phase="Failed"')),
            at=grid(4, 4),
            steps=((None, GREEN), (1, RED)),
        ),
        number(
            "Operators that lead",
            "One per installation. None: no stage is started.",
            at_once(f"sum(sppo_operator_leader{{{OPERATOR}}}) or vector(0)"),
            at=grid(4, 4),
            steps=((None, RED), (1, GREEN)),
        ),
        number(
            "Runs in the work queue",
            "Runs that wait for the operator to look at them.",
            at_once(current("sppo_operator_workqueue_depth", OPERATOR)),
            at=grid(4, 4),
            steps=((None, GREEN), (10, ORANGE)),
        ),
        number(
            "Age of what it knows",
            "Time since the leader's oldest watch delivered something or a list confirmed it, as it does every minute.",
            at_once(current("sppo_operator_watch_age_seconds", OPERATOR)),
            at=grid(4, 4),
            unit="s",
            decimals=0,
            steps=((None, GREEN), (180, ORANGE), (600, RED)),
        ),
        number(
            "GPUs at work",
            "GPUs that running pods of all runs requested, averaged over the last minutes.",
            at_once(f"sum(max by (namespace, run, stage) (rate(sppo_run_gpu_seconds_total{{{RUNS}}}[{INTERVAL}])))"),
            at=grid(4, 4),
            decimals=1,
            no_value="none",
        ),
    ]


def _runs() -> list[Drawn]:
    of_run = ("namespace", "run")
    created = current("sppo_run_created_timestamp_seconds", RUNS, *of_run)
    link = (
        f"/d/{run.UID}?var-namespace=${{__data.fields.namespace}}&var-run=${{__data.fields.run}}"
        "&${datasource:queryparam}&${__url_time_range}"
    )
    return [
        columns(
            "Runs",
            "All runs. A run's name leads to its dashboard.",
            {
                "_": rows(current("sppo_run_phase", RUNS, *of_run, "phase")),
                "iteration": rows(current("sppo_run_iteration", RUNS, *of_run)),
                "of": rows(current("sppo_run_iterations", RUNS, *of_run)),
                "progress": rows(current("sppo_run_stage_progress_ratio", RUNS, *of_run)),
                "win rate": rows(newest_win_rate("sppo_run_win_rate", RUNS)),
                "low": rows(newest_win_rate("sppo_run_win_rate_low", RUNS)),
                "high": rows(newest_win_rate("sppo_run_win_rate_high", RUNS)),
                "failures": rows(
                    f"sum by (namespace, run) ({current('sppo_run_failures_total', RUNS, *of_run, 'cause')})"
                ),
                "age": rows(f"time() - {created}"),
            },
            at=grid(24, 9),
            looks={
                **dict.fromkeys(("progress", "win rate", "low", "high"), unit("percentunit")),
                "age": unit("s"),
                "phase": coloured(PHASES),
                "run": leading_to("The run's dashboard", link),
            },
            labels=["namespace", "run", "phase"],
            sort_by="age",
            no_value="no runs",
        ),
        lines(
            "Runs by phase",
            "What the runs are doing.",
            over_time(f"sum by (phase) ({current('sppo_runs', RUNS, 'namespace', 'phase')})", "{{phase}}"),
            at=grid(8, 8),
            unit="none",
            stacked=True,
            low=0,
        ),
        bars(
            "Failures by cause",
            "Attempts of all runs that ended badly within each interval.",
            over_time(f"sum by (cause) (increase(sppo_run_failures_total{{{RUNS}}}[{INTERVAL}]))", "{{cause}}"),
            at=grid(8, 8),
            unit="none",
        ),
        lines(
            "GPUs at work by namespace",
            "GPUs that running pods requested: the rate of their GPU-seconds.",
            over_time(
                f"sum by (namespace) (max by (namespace, run, stage) "
                f"(rate(sppo_run_gpu_seconds_total{{{RUNS}}}[{INTERVAL}])))",
                "{{namespace}}",
            ),
            at=grid(8, 8),
            stacked=True,
            low=0,
        ),
    ]


def _work() -> list[Drawn]:
    wait, look = "sppo_operator_workqueue_wait_seconds", "sppo_operator_reconcile_seconds"
    return [
        lines(
            "Work queue",
            "Runs that wait to be looked at.",
            over_time(current("sppo_operator_workqueue_depth", OPERATOR), "waiting"),
            at=grid(5, 8),
            unit="none",
            low=0,
        ),
        lines(
            "Wait in the work queue",
            "How long a run waited until it was looked at.",
            over_time(quantile(0.5, wait, OPERATOR), "p50"),
            over_time(quantile(0.99, wait, OPERATOR), "p99"),
            at=grid(5, 8),
            unit="s",
            low=0,
        ),
        lines(
            "Looks at runs",
            "Per second, by how they ended: done, retried after an error of the API server, failed by a fault of the "
            "operator.",
            over_time(_per_second(f"{look}_count", "result"), "{{result}}"),
            at=grid(5, 8),
            unit="ops",
            stacked=True,
            low=0,
        ),
        lines(
            "Time of a look at a run",
            "From reading what is there to writing the status.",
            over_time(quantile(0.5, look, OPERATOR), "p50"),
            over_time(quantile(0.99, look, OPERATOR), "p99"),
            at=grid(5, 8),
            unit="s",
            low=0,
        ),
        lines(
            "Looks that ended in an error",
            "Per second, by the class of the error. ConflictError is ordinary; Fault is a bug: please report it.",
            over_time(_per_second("sppo_operator_reconcile_errors_total", "reason"), "{{reason}}"),
            at=grid(4, 8),
            unit="ops",
            low=0,
        ),
    ]


def _calls() -> list[Drawn]:
    calls, missed = "sppo_operator_api_calls_total", "sppo_operator_watch_missed_total"
    return [
        lines(
            "API calls by code",
            "Per second, without watches. Code 0 is no answer, 409 an ordinary conflict.",
            over_time(_per_second(calls, "code"), "{{code}}"),
            at=grid(5, 8),
            unit="ops",
            stacked=True,
            low=0,
        ),
        lines(
            "API calls by resource",
            "Per second, without watches.",
            over_time(_per_second(calls, "verb", "resource"), "{{verb}} {{resource}}"),
            at=grid(5, 8),
            unit="ops",
            stacked=True,
            low=0,
        ),
        lines(
            "Time of an API call, p99",
            "How long the API server took to answer.",
            over_time(quantile(0.99, "sppo_operator_api_call_seconds", OPERATOR, "verb"), "{{verb}}"),
            at=grid(5, 8),
            unit="s",
            low=0,
        ),
        lines(
            "Age of the leader's watches",
            "Time since a watch delivered something or a list confirmed it, as it does every minute.",
            over_time(current("sppo_operator_watch_age_seconds", OPERATOR, "resource"), "{{resource}}"),
            at=grid(5, 8),
            unit="s",
            low=0,
        ),
        bars(
            "Missed by a watch",
            "Runs of which a list showed something that no watch had delivered, which mends it. After three such lists "
            "in a row the operator starts anew.",
            over_time(f"sum by (resource) (increase({missed}{{{OPERATOR}}}[{INTERVAL}]))", "{{resource}}"),
            at=grid(4, 8),
            unit="none",
        ),
    ]


def _processes() -> list[Drawn]:
    process = f"and on (namespace, pod) sppo_operator_info{{{OPERATOR}}}"
    return [
        timeline(
            "Who leads",
            "The leader among the replicas. A change leaves a gap of some 15 seconds.",
            over_time(f"max by (namespace, pod) (sppo_operator_leader{{{OPERATOR}}})", "{{pod}}"),
            states={0: ("waits", GREY), 1: ("leads", GREEN)},
            at=grid(6, 8),
        ),
        lines(
            "Memory",
            "Resident memory by replica.",
            over_time(f"process_resident_memory_bytes {process}", "{{pod}}"),
            at=grid(6, 8),
            unit="bytes",
            low=0,
        ),
        lines(
            "CPU",
            "Cores used, by replica.",
            over_time(f"rate(process_cpu_seconds_total[{INTERVAL}]) {process}", "{{pod}}"),
            at=grid(6, 8),
            low=0,
        ),
        columns(
            "Replicas",
            "The version of each, and since when it runs.",
            {
                "_": rows(f"max by (namespace, pod, version) (sppo_operator_info{{{OPERATOR}}})"),
                "leads": rows(f"max by (namespace, pod) (sppo_operator_leader{{{OPERATOR}}})"),
                "age": rows(f"max by (namespace, pod) (time() - process_start_time_seconds {process})"),
            },
            at=grid(6, 8),
            looks={"age": unit("s"), "leads": coloured({"0": GREY, "1": GREEN})},
            labels=["namespace", "pod", "version"],
            sort_by="pod",
        ),
    ]


def _count(which: str) -> str:
    """How many runs have such a phase."""
    return f"sum({current('sppo_runs', f'{RUNS},{which}', 'namespace', 'phase')}) or vector(0)"


def _per_second(counter: str, *labels: str) -> str:
    """Of all replicas together."""
    return f"sum by ({', '.join(labels)}) (rate({counter}{{{OPERATOR}}}[{INTERVAL}]))"
