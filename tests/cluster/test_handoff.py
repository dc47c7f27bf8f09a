"""How long a run stands still between two stages, by the clock of the API server."""

from __future__ import annotations

from itertools import pairwise

import pytest
from audit import AuditLog, completions, creations
from lab import Lab, condition
from namespaces import Namespace
from standin_runs import standin
from testbed import Node

RUNS = 2
ITERATIONS = 4
JOBS = 2 + 4 * ITERATIONS


def test_the_next_job_is_posted_as_soon_as_the_last_one_is_complete(
    lab: Lab, node: Node, namespace: Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    log = AuditLog(node.audit_log)
    names = [f"run-{number}" for number in range(RUNS)]
    for name in names:
        namespace.apply(standin(name, iterations=ITERATIONS, evaluation={"parallel": False}))  # a chain of Jobs
    for name in names:
        assert condition(lab.until_over(namespace.name, name, seconds=300), "Succeeded")["status"] == "True"
    calls = log.calls(namespace.name)
    created, ended = creations(calls), completions(calls)
    seconds = []
    for name in names:
        chain = [job for job in created if job.startswith(f"{name}-i")]
        assert len(chain) == JOBS
        seconds += [(created[new].received - ended[old].answered).total_seconds() for old, new in pairwise(chain)]
    seconds.sort()
    p50, p99 = (seconds[round(share * (len(seconds) - 1))] for share in (0.5, 0.99))
    with capsys.disabled():
        print(f"\nhand-off, {len(seconds)} of them: p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms")
    assert len(seconds) >= 30
    assert p50 < 1
