"""The dashboard of all runs and of the operator."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Row

from monitoring import operator_rows, run
from monitoring.colours import GREEN, ORANGE, PHASES, RED
from monitoring.expressions import current, newest_win_rate
from monitoring.operator_rows import INTERVAL, OPERATOR
from monitoring.panels import (
    Drawn,
    at_once,
    coloured,
    columns,
    leading_to,
    lines,
    number,
    over_time,
    rows,
    unit,
)

UID = "sppo-fleet"
TITLE = "SPPO / Fleet and operator"
DESCRIPTION = "All SPPORuns, and the operator that carries them out."
RUNS = 'namespace=~"$namespace"'
FIRING = 'ALERTS{alertname=~"SPPO.+",alertstate="firing"}'


def contents() -> list[Drawn | Row]:
    return [
        *_headline(),
        Row("Runs"),
        _runs(),
        *_sums(),
        Row("Operator: work"),
        *operator_rows.work(),
        Row("Operator: API server and watches"),
        *operator_rows.calls(),
        Row("Operator: processes"),
        *operator_rows.processes(),
    ]


def _headline() -> list[Drawn]:
    return [
        number(
            "Runs under way",
            "Runs that have neither succeeded nor failed, those that wait or are suspended included.",
            at_once(_count('phase!~"Succeeded|Failed"')),
        ),
        number(
            "Failed runs",
            "Runs that wait for somebody to mend the cause, retry or delete them.",
            at_once(_count('phase="Failed"')),
            steps=((None, GREEN), (1, RED)),
        ),
        number(
            "Operators that lead",
            "One per installation. None: no stage is started.",
            at_once(f"sum(sppo_operator_leader{{{OPERATOR}}}) or vector(0)"),
            steps=((None, RED), (1, GREEN)),
        ),
        number(
            "Runs in the work queue",
            "Runs that wait for the operator to look at them.",
            at_once(current("sppo_operator_workqueue_depth", OPERATOR)),
            steps=((None, GREEN), (10, ORANGE)),
        ),
        number(
            "Age of what it knows",
            "Time since the leader's oldest watch delivered something or a list confirmed it, as it does every minute.",
            at_once(current("sppo_operator_watch_age_seconds", OPERATOR)),
            unit="s",
            decimals=0,
            steps=((None, GREEN), (180, ORANGE), (600, RED)),
        ),
        number(
            "GPUs at work",
            "GPUs that running pods of all runs requested, averaged over ten minutes.",
            at_once(f"sum(max by (namespace, run, stage) (rate(sppo_run_gpu_seconds_total{{{RUNS}}}[10m])))"),
            decimals=1,
            no_value="none",
        ),
    ]


def _runs() -> Drawn:
    of_run = ("namespace", "run")
    created = current("sppo_run_created_timestamp_seconds", RUNS, *of_run)
    link = (
        f"/d/{run.UID}?var-namespace=${{__data.fields.namespace}}&var-run=${{__data.fields.run}}"
        "&${datasource:queryparam}&${__url_time_range}"
    )
    return columns(
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
            "failures": rows(f"sum by (namespace, run) ({current('sppo_run_failures_total', RUNS, *of_run, 'cause')})"),
            "age": rows(f"time() - {created}"),
        },
        looks={
            **dict.fromkeys(("progress", "win rate", "low", "high"), unit("percentunit")),
            "age": unit("s"),
            "phase": coloured(PHASES),
            "run": leading_to("The run's dashboard", link),
        },
        labels=["namespace", "run", "phase"],
        sort_by="age",
        no_value="no runs",
    )


def _sums() -> list[Drawn]:
    return [
        lines(
            "Runs by phase",
            "What the runs are doing.",
            over_time(f"sum by (phase) ({current('sppo_runs', RUNS, 'namespace', 'phase')})", "{{phase}}"),
            unit="none",
            stacked=True,
        ),
        lines(
            "Failures by cause",
            "Attempts that ended badly so far, of the runs that exist. It shows no rate, which would miss a run that "
            "fails before it is first scraped.",
            over_time(
                f"sum by (cause) ({current('sppo_run_failures_total', RUNS, 'namespace', 'run', 'cause')})", "{{cause}}"
            ),
            unit="none",
            stacked=True,
        ),
        lines(
            "GPUs at work by namespace",
            "GPUs that running pods requested: the rate of their GPU-seconds. A stage counts its last half minute at "
            "its end, so that short stages show as peaks.",
            over_time(
                f"sum by (namespace) (max by (namespace, run, stage) "
                f"(rate(sppo_run_gpu_seconds_total{{{RUNS}}}[{INTERVAL}])))",
                "{{namespace}}",
            ),
            stacked=True,
        ),
    ]


def _count(which: str) -> str:
    """How many runs have such a phase."""
    return f"sum({current('sppo_runs', f'{RUNS},{which}', 'namespace', 'phase')}) or vector(0)"
