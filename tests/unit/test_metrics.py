"""What /metrics answers: the operator's own figures as they move, who shows the runs, and that the documentation is true."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import fake_time
import pytest
from lone_term import Stage, started
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from run_resources import MOST_SERIES, Object, largest, resource
from sppo_operator import __version__
from sppo_operator.cache import Key
from sppo_operator.errors import ConflictError
from sppo_operator.exposition import Exposition
from sppo_operator.metrics import Metrics
from sppo_operator.workqueue import WorkQueue

DOCUMENT = (Path(__file__).parents[2] / "docs/metrics.md").read_text("utf-8")
OPENMETRICS = "application/openmetrics-text; version=1.0.0,text/plain; version=0.0.4;q=0.5"
ROW = re.compile(r"\| `(?P<name>[a-z0-9_]+)` \| (?P<type>\w+) \| (?P<labels>[^|]*) \| (?P<meaning>[^|]+) \|")


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def text(metrics: Metrics, runs: list[Object] | None, accept: str = "") -> str:
    body, _ = asyncio.run(Exposition(metrics, lambda: runs).render(accept))
    return body.decode()


def everything() -> str:
    """Of a leader that has seen everything happen."""
    metrics = Metrics()

    async def lead() -> None:
        stage = Stage(metrics=metrics)
        await started(stage)

    fake_time.run(lead())
    metrics.called("get", "pods/log", 200, 0.1)
    run = json.loads(json.dumps(largest()))
    stages = run["status"]["iterations"][-1]["stages"]
    reported = ("lossOverEta2", "logRatioBest", "klPerResponse", "passRate", "meanTokens", "cutShare")
    for stage in stages:  # those of the newest iteration have ended
        stage |= {"state": "Succeeded", "metrics": dict.fromkeys(reported, "1")}
    return text(metrics, [run])


def every_metric() -> dict[str, Metric]:
    """By name as Prometheus stores it."""
    families = {family.name: family for family in text_string_to_metric_families(everything())}
    counters = {f"{name}_total": family for name, family in families.items() if family.type == "counter"}
    return {name: family for name, family in families.items() if family.type != "counter"} | counters


# The operator's own


def test_the_queue_is_measured() -> None:
    async def scenario() -> Metrics:
        metrics = Metrics()
        queue = WorkQueue[str](metrics=metrics)
        for key in ("a", "b", "a"):
            queue.add(key)
        await asyncio.sleep(3)
        assert await queue.get() == "a"
        queue.retry("a")
        return metrics

    metrics = fake_time.run(scenario())
    assert value(metrics, "sppo_operator_workqueue_depth") == 1
    assert value(metrics, "sppo_operator_workqueue_adds_total") == 2
    assert value(metrics, "sppo_operator_workqueue_retries_total") == 1
    assert value(metrics, "sppo_operator_workqueue_wait_seconds_sum") == pytest.approx(3)
    assert value(metrics, "sppo_operator_workqueue_wait_seconds_bucket", le="5.0") == 1
    assert value(metrics, "sppo_operator_workqueue_wait_seconds_bucket", le="1.0") == 0


def term(scenario: Callable[[Stage], Awaitable[None]]) -> Metrics:
    metrics = Metrics()

    async def inside() -> None:
        await scenario(Stage(metrics=metrics))

    fake_time.run(inside())
    return metrics


def test_passes_are_measured_by_how_they_end() -> None:
    async def scenario(stage: Stage) -> None:
        faults: list[Exception | None] = [ConflictError("changed"), ConflictError("changed"), ZeroDivisionError(), None]

        async def look(key: Key) -> float | None:
            await asyncio.sleep(2)
            if fault := faults.pop(0):
                raise fault
            return None

        stage.reconciler.does = look
        stage.add_run("a")
        await started(stage, 30.0)
        assert faults == []

    metrics = term(scenario)
    counts = {result: value(metrics, "sppo_operator_reconcile_seconds_count", result=result) for result in ("done", "retried", "failed")}  # fmt: skip
    assert counts == {"done": 1, "retried": 2, "failed": 1}
    assert value(metrics, "sppo_operator_reconcile_seconds_sum", result="retried") == pytest.approx(4)
    assert value(metrics, "sppo_operator_reconcile_errors_total", reason="ConflictError") == 2
    assert value(metrics, "sppo_operator_reconcile_errors_total", reason="Fault") == 1


def test_a_pass_that_a_stop_cancelled_is_neither_done_nor_failed() -> None:
    async def scenario(stage: Stage) -> None:
        async def hang(key: Key) -> float | None:
            await asyncio.Event().wait()
            return None

        stage.reconciler.does = hang
        stage.add_run("a")
        await started(stage)
        await stage.term.stop(1.0)

    metrics = term(scenario)
    assert not any(value(metrics, "sppo_operator_reconcile_seconds_count", result=result) for result in ("done", "failed"))  # fmt: skip


def age(metrics: Metrics) -> float | None:
    return value(metrics, "sppo_operator_watch_age_seconds", resource="spporuns")


def test_a_watch_is_young_after_an_event_and_after_a_list_that_found_nothing_new() -> None:
    async def scenario(stage: Stage) -> None:
        metrics = stage.metrics
        assert age(metrics) is None, "it does not lead yet"
        await started(stage, 50.0)
        assert age(metrics) == pytest.approx(50)
        stage.add_run("a")
        stage.deliver()
        assert age(metrics) == 0
        await asyncio.sleep(30)  # the LIST at 54 to 66 s, and ten seconds for what is on its way
        assert age(metrics) == pytest.approx(20, abs=7)

    term(scenario)


def test_a_watch_that_misses_what_happens_grows_old() -> None:
    async def scenario(stage: Stage) -> None:
        await started(stage)
        for number in range(3):
            stage.add_run(f"r{number}")
            stage.forget()
            await asyncio.sleep(76)
        assert age(stage.metrics) == pytest.approx(229)
        assert value(stage.metrics, "sppo_operator_watch_missed_total", resource="spporuns") == 3
        assert value(stage.metrics, "sppo_operator_watch_missed_total", resource="jobs") == 0

    term(scenario)


def test_two_processes_do_not_share_their_figures() -> None:
    one, other = Metrics(), Metrics()
    one.called("get", "jobs", 200, 0.1)
    assert value(one, "sppo_operator_api_calls_total", verb="get", resource="jobs", code="200") == 1
    assert value(other, "sppo_operator_api_calls_total", verb="get", resource="jobs", code="200") is None
    assert value(one, "sppo_operator_api_call_seconds_count", verb="get") == 1
    assert value(one, "sppo_operator_info", version=__version__) == 1


# Who shows the runs


def test_a_follower_shows_no_run() -> None:
    shown = text(Metrics(), None)
    assert "sppo_run" not in shown
    assert "sppo_operator_leader 0.0" in shown
    assert "process_resident_memory_bytes" in shown


def test_a_leader_shows_its_runs_once_each_of_them_was_looked_at() -> None:
    async def scenario(stage: Stage) -> None:
        held = asyncio.Event()

        async def look(key: Key) -> float | None:
            if key.name == "b":
                await held.wait()
            return None

        stage.reconciler.does = look
        for name in ("a", "b"):
            stage.add_run(name)
        assert stage.term.runs() is None
        await started(stage)
        assert stage.term.runs() is None, "what b says may be old"
        held.set()
        await asyncio.sleep(0.1)
        stage.add_run("c")
        stage.deliver()
        runs = stage.term.runs()
        assert runs is not None
        assert [run["metadata"]["name"] for run in runs] == ["a", "b", "c"]
        stage.api.remove(stage.api.at(stage.api.all("spporuns")[0]))
        stage.deliver()
        assert [run["metadata"]["name"] for run in stage.term.runs() or ()] == ["b", "c"]

    term(scenario)


def test_a_deleted_run_leaves_no_series() -> None:
    runs = [resource("kept"), resource("gone")]
    exposition = Exposition(Metrics(), lambda: runs)

    async def scenario() -> tuple[bytes, bytes]:
        before, _ = await exposition.render("")
        del runs[1]
        return before, (await exposition.render(""))[0]

    before, after = asyncio.run(scenario())
    assert b'run="gone"' in before
    assert b"gone" not in after
    assert b'run="kept"' in after


def test_a_run_that_cannot_be_read_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    old = resource("old")
    del old["spec"]["model"]
    exposition = Exposition(Metrics(), lambda: [old, resource("kept")])
    first, again = (asyncio.run(exposition.render(""))[0].decode() for _ in range(2))
    assert 'run="kept"' in again
    assert "sppo_operator_unreadable_runs 1.0" in first
    assert "sppo_operator_unreadable_runs 1.0" in again
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "lab/old has no metrics" in record.getMessage()


@pytest.mark.parametrize(
    ("accept", "media_type", "end"),
    [("", "text/plain; version=0.0.4", ""), (OPENMETRICS, "application/openmetrics-text; version=1.0.0", "# EOF\n")],
    ids=["Prometheus' text", "OpenMetrics"],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, media_type: str, end: str) -> None:
    body, told = asyncio.run(Exposition(Metrics(), lambda: [resource()]).render(accept))
    assert told.startswith(media_type)
    assert body.decode().endswith(end)


def test_the_event_loop_goes_on_while_many_runs_are_written() -> None:
    exposition = Exposition(Metrics(), lambda: [largest()] * 100)

    async def scenario() -> int:
        writing = asyncio.create_task(exposition.render(""))
        turns = 0
        while not writing.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(scenario()) > 10


# The documentation, and Prometheus' conventions


def test_the_documentation_names_every_metric_with_its_type_and_its_labels() -> None:
    documented = {
        match["name"]: (match["type"], sorted(re.findall(r"`(\w+)`", match["labels"])))
        for match in ROW.finditer(DOCUMENT)
    }
    exposed = {
        name: (family.type, sorted({label for sample in family.samples for label in sample.labels} - {"le"}))
        for name, family in every_metric().items()
        if name.startswith("sppo_")
    }
    assert documented == exposed


def test_the_documentation_says_how_many_series_a_run_can_have() -> None:
    assert f"at most {MOST_SERIES} series" in DOCUMENT


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) checks the conventions")
def test_promtool_has_no_complaint() -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=everything(),
        text=True,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
