"""Many runs at once, on a pretended node whose pods end at once: what the operator itself costs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit import OPERATOR, AuditLog
from lab import Lab, condition
from namespaces import Namespace
from operators import Operator
from prometheus import Prometheus
from standin_runs import STEPS, standin
from testbed import Node, start_kwok, stop_kwok

RUNS = 300
STAGES = ("prepare", "generate", "score", "train", "evaluate")
PRETENDED = {
    "nodeSelector": {"type": "kwok"},
    "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
    "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
}


@pytest.fixture
def pretended_node(node: Node, operator: Operator) -> Iterator[Node]:
    start_kwok(node)
    yield node
    stop_kwok(node)


@pytest.fixture
def namespace(lab: Lab, pretended_node: Node) -> Iterator[Namespace]:
    """One that is removed before the node is, which otherwise takes minutes."""
    space = Namespace.create(lab, "many-runs")
    yield space
    space.remove()


@pytest.fixture
def prometheus(lab: Lab, operator: Operator, tmp_path: Path) -> Iterator[Prometheus]:
    """One that scrapes as often as most do."""
    prometheus = Prometheus(tmp_path, lab, scrape_seconds=15)
    yield prometheus
    prometheus.stop()


@pytest.mark.timeout(900)
def test_300_runs_at_once_all_finish_within_the_memory_that_pods_request(
    lab: Lab,
    pretended_node: Node,
    operator: Operator,
    namespace: Namespace,
    prometheus: Prometheus,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log, began, cpu_before = AuditLog(pretended_node.audit_log), time.monotonic(), operator.cpu_seconds()
    for number in range(RUNS):
        namespace.apply(standin(f"run-{number:03}", stages={stage: {"template": PRETENDED} for stage in STAGES}))
    ends = lab.until("spporuns", namespace.name, all_ends, seconds=600)
    seconds, cpu_seconds = time.monotonic() - began, operator.cpu_seconds() - cpu_before
    scrapes = prometheus.now(f"count_over_time(up[{seconds:.0f}s])")
    failed = prometheus.now(f"min_over_time(up[{seconds:.0f}s]) == 0")
    calls = [call for call in log.calls() if call.user == OPERATOR and call.resource != "leases"]
    counts = Counter(f"{call.verb} {call.resource}" for call in calls)
    peak, requested = operator.memory_peak_bytes() / 2**20, operator.memory_request_mib()
    with capsys.disabled():
        print(f"\n{RUNS} runs of {len(STEPS)} Jobs at once: {seconds:.0f} s, {cpu_seconds:.0f} s of CPU time,", end=" ")
        print(f"{peak:.0f} MiB at most, {len(calls) / RUNS:.1f} API calls per run,", end=" ")
        print(f"{' and '.join(series['value'][1] for series in scrapes)} scrapes of the replicas:")
        print(", ".join(f"{count / RUNS:.1f} {name}" for name, count in counts.most_common()))
    assert Counter(ends) == {"Finished": RUNS}
    assert counts["create jobs"] == RUNS * len(STEPS)
    assert (len(scrapes), failed) == (2, [])
    assert peak < requested


def all_ends(runs: dict[str, dict[str, object]]) -> list[str]:
    """Why each run is over; nothing while one is not."""
    found = [condition(run, "Succeeded") for run in runs.values()]
    over = len(found) == RUNS and all(item["status"] in ("True", "False") for item in found)
    return [item["reason"] for item in found] if over else []
