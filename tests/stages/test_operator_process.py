"""The operator as a process: real kopf, real sockets and signals, a simulated API server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from api_scenarios import DEADLINE_SECONDS, eventually, with_server
from api_server import Answer, ApiServer
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from simulated_operator import MANIFEST
from sppo_operator.resources import job
from sppo_operator.validation import admit


class Operator:
    """`python -m sppo_operator.main` with a lease of 3 s."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, port: int) -> None:
        self._process = process
        self.log = log
        self._port = port

    @classmethod
    async def start(cls, server: ApiServer, folder: Path, identity: str) -> Operator:
        config = folder / "kubeconfig"
        named = {"clusters": [{"name": "x", "cluster": {"server": server.url}}], "users": [{"name": "x", "user": {}}]}
        contexts = [{"name": "x", "context": {"cluster": "x", "user": "x"}}]
        config.write_text(json.dumps({**named, "contexts": contexts, "current-context": "x"}))
        log = folder / f"{identity}.log"
        with socket.create_server(("", 0)) as free:
            port = free.getsockname()[1]
        flags = f"--image trainer:1 --identity {identity} --lease-namespace sppo-system --http-port {port} --log-format json"
        times = "--lease-seconds 4 --renew-seconds 3 --retry-seconds 1"
        with log.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "sppo_operator.main", *flags.split(), *times.split()),
                env=os.environ | {"KUBECONFIG": str(config)},
                stderr=sink,
            )
        return cls(process, log, port)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def end(self) -> int:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self._process.wait()

    async def metrics(self) -> dict[str, float]:
        """What a scrape finds, as Prometheus asks for it; the labels of a series are in its name."""
        headers = {"Accept": "application/openmetrics-text;version=1.0.0,*/*;q=0.1", "Accept-Encoding": "gzip"}
        url = f"http://127.0.0.1:{self._port}/metrics"
        async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as response:
            assert response.status == 200
            assert response.headers["Content-Encoding"] == "gzip"
            families = text_string_to_metric_families(await response.text())
        return {series(one.name, **one.labels): one.value for family in families for one in family.samples}

    def messages(self) -> list[str]:
        return [json.loads(line)["message"] for line in self.log.read_text().splitlines()]


def with_operators(
    folder: Path, scenario: Callable[[ApiServer, Callable[[str], Awaitable[Operator]]], Awaitable[None]]
) -> None:
    started: list[Operator] = []

    async def inside(server: ApiServer) -> None:
        async def start(identity: str) -> Operator:
            started.append(await Operator.start(server, folder, identity))
            return started[-1]

        try:
            await scenario(server, start)
        finally:
            for operator in started:
                if operator._process.returncode is None:
                    operator.signal(signal.SIGKILL)
                    await operator.end()

    with_server(inside)


def series(name: str, **labels: str) -> str:
    return " ".join([name, *(f"{label}={labels[label]}" for label in sorted(labels))])


def holder(server: ApiServer) -> str:
    return next((found["spec"].get("holderIdentity") or "" for found in server.all("leases")), "")


def test_from_a_run_to_its_first_job_to_a_clean_end(tmp_path: Path) -> None:
    async def scenario(server: ApiServer, start: Callable[[str], Awaitable[Operator]]) -> None:
        operator = await start("a")
        await eventually(lambda: any("watch" in request.query for request in server.requests))
        server.add("spporuns", admit(MANIFEST))
        await eventually(lambda: server.all("jobs"))
        (made,) = server.all("jobs")
        assert made["metadata"]["name"] == "demo-i0-prepare-a1"
        assert await server.get(job("lab", "demo-i0-prepare-a1"))
        operator.signal(signal.SIGTERM)
        assert await operator.end() == 0
        assert holder(server) == ""
        assert operator.messages()[-1] == "asked to stop"

    with_operators(tmp_path, scenario)


def test_the_leader_shows_the_runs_and_every_process_shows_itself(tmp_path: Path) -> None:
    state = series("sppo_run_stage_state", namespace="lab", run="demo", iteration="0", stage="prepare", state="Running")
    looks = series("sppo_operator_reconcile_seconds_count", result="done")
    age = series("sppo_operator_watch_age_seconds", resource="spporuns")

    async def scenario(server: ApiServer, start: Callable[[str], Awaitable[Operator]]) -> None:
        leader = await start("a")
        await eventually(lambda: holder(server) == "a")
        standby = await start("b")
        await eventually(lambda: "b waits to lead" in standby.messages())
        made = server.add("spporuns", admit(MANIFEST))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while state not in (found := await leader.metrics()):
                await asyncio.sleep(0.1)
        assert found["sppo_operator_leader"] == 1
        assert found[looks] >= 1
        assert (
            found[series("sppo_operator_api_calls_total", verb="update", resource="spporuns/status", code="200")] >= 1
        )
        assert found[series("sppo_runs", namespace="lab", phase="Preparing")] == 1
        assert found[age] < DEADLINE_SECONDS
        assert found["process_resident_memory_bytes"] > 2**20

        idle = await standby.metrics()
        assert (idle["sppo_operator_leader"], idle[looks]) == (0, 0)
        assert not [name for name in idle if name.startswith("sppo_run") or name == age]

        server.remove(server.at(made))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while "demo" in str(await leader.metrics()):
                await asyncio.sleep(0.1)

        leader.signal(signal.SIGKILL)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (await standby.metrics())["sppo_operator_leader"] == 0:
                await asyncio.sleep(0.1)

    with_operators(tmp_path, scenario)


def test_a_standby_follows_a_leader_that_was_killed_and_one_that_was_stopped(tmp_path: Path) -> None:
    async def scenario(server: ApiServer, start: Callable[[str], Awaitable[Operator]]) -> None:
        first = await start("a")
        await eventually(lambda: holder(server) == "a")
        second = await start("b")
        await eventually(lambda: "b waits to lead" in second.messages())
        killed = time.monotonic()
        first.signal(signal.SIGKILL)
        await eventually(lambda: holder(server) == "b")
        assert time.monotonic() - killed < 4 + 3, "more than the lease and two looks"
        third = await start("c")
        await eventually(lambda: "c waits to lead" in third.messages())
        second.signal(signal.SIGTERM)
        await eventually(lambda: holder(server) == "c")
        assert await second.end() == 0
        third.signal(signal.SIGINT)
        assert await third.end() == 0

    with_operators(tmp_path, scenario)


def test_a_leader_that_was_frozen_does_nothing_more(tmp_path: Path) -> None:
    async def scenario(server: ApiServer, start: Callable[[str], Awaitable[Operator]]) -> None:
        frozen = await start("a")
        await eventually(lambda: any("leading" in message for message in frozen.messages()))
        frozen.signal(signal.SIGSTOP)
        server.add("spporuns", admit(MANIFEST))
        await asyncio.sleep(4.5)  # longer than the lease, on the system's clock: the process has no other
        calls = len(server.calls)
        frozen.signal(signal.SIGCONT)
        assert await frozen.end() == 1
        assert len(server.calls) == calls
        assert server.all("jobs") == []

    with_operators(tmp_path, scenario)


def test_a_leader_without_an_api_server_ends(tmp_path: Path) -> None:
    async def scenario(server: ApiServer, start: Callable[[str], Awaitable[Operator]]) -> None:
        operator = await start("a")
        await eventually(lambda: any("leading" in message for message in operator.messages()))
        server.answers.extend([Answer(503, {"message": "down"})] * 1000)
        assert await operator.end() == 1
        assert "the lease is lost: ending" in operator.messages()

    with_operators(tmp_path, scenario)


def test_a_standby_ends_when_asked_to(tmp_path: Path) -> None:
    async def scenario(server: ApiServer, start: Callable[[str], Awaitable[Operator]]) -> None:
        server.answers.extend([Answer(503, {"message": "down"})] * 1000)
        operator = await start("a")
        await eventually(lambda: any("down" in message for message in operator.messages()))
        operator.signal(signal.SIGTERM)
        assert await operator.end() == 0

    with_operators(tmp_path, scenario)


@pytest.mark.parametrize(
    ("flags", "expected_code", "message"),
    [("", 64, "no trainer image is set"), ("--image x --lease-namespace n", 78, "the kubeconfig cannot be used")],
    ids=["settings", "kubeconfig"],
)
def test_what_the_user_must_change_ends_it(flags: str, expected_code: int, message: str, tmp_path: Path) -> None:
    async def scenario() -> tuple[int | None, bytes]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sppo_operator.main", *flags.split()),
            env=os.environ | {"KUBECONFIG": str(tmp_path / "missing")},
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        return process.returncode, errors

    code, errors = asyncio.run(scenario())
    assert code == expected_code
    assert errors.decode().startswith("error: ")
    assert message in errors.decode()
    assert len(errors.splitlines()) == 1
