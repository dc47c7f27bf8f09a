"""PromQL that both dashboards use."""

from __future__ import annotations

STATES = {
    "Queued": 1,
    "Suspended": 2,
    "Running": 3,
    "Succeeded": 4,
    "GivenUp": 5,
    "Failed": 6,
}
"""Numbers for the states of a stage in a timeline, where Pending is left out."""


def newest_win_rate(metric: str, selector: str) -> str:
    """The win rate against the base that was measured last, by run: Prometheus cannot order by a label.

    `metric` is sppo_run_win_rate or one of its ends.
    """
    rate = f'{metric}{{{selector},against="base",oracle="training"}}'
    ended = f'sppo_run_stage_finish_timestamp_seconds{{{selector},stage="evaluate"}}'
    iteration = "and on (namespace, run, iteration)"
    newest = f"topk by (namespace, run) (1, max by (namespace, run, iteration) ({ended}) {iteration} {rate})"
    return f"max by (namespace, run) ({rate} {iteration} {newest})"


def seen(metric: str, selector: str, *labels: str) -> str:
    """The last value within the time range: also of iterations that the operator tells of no more, and of past runs."""
    return f"max by ({', '.join(labels)}) (last_over_time({metric}{{{selector}}}[$__range]))"


def current(metric: str, selector: str, *labels: str) -> str:
    by = f" by ({', '.join(labels)})" if labels else ""
    return f"max{by} ({metric}{{{selector}}})"


def stage_states(selector: str) -> str:
    """The state of each stage as its number in STATES."""
    terms = [f'sppo_run_stage_state{{{selector},state="{state}"}} * {number}' for state, number in STATES.items()]
    return f"max by (iteration, stage) ({' or '.join(terms)})"


def quantile(share: float, metric: str, selector: str, *labels: str) -> str:
    """Of a histogram."""
    by = ", ".join(("le", *labels))
    return f"histogram_quantile({share}, sum by ({by}) (rate({metric}_bucket{{{selector}}}[$__rate_interval])))"
