"""What a simulated cluster came to, served over HTTP: commands ask it as they ask any cluster."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from api_server import ApiServer
from simulated_api import At, Object
from simulated_operator import SimulatedOperator

SHOWN = ("spporuns", "jobs", "pods", "events")
SECONDS = 60.0


class Done(NamedTuple):
    code: int | None
    out: str
    err: str


class ServedCluster:
    """An API server with the objects of a simulated one, and commands that ask it."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"

    def show(self, operator: SimulatedOperator) -> None:
        """Serve what this one came to, in place of what was there."""
        there = {at for at in self.server._objects if at.plural in SHOWN}
        for plural in SHOWN:
            for item in operator.cluster.all(plural):
                at = At(plural, item["metadata"]["namespace"], item["metadata"]["name"])
                there.discard(at)
                self.server._store(at, self.server._objects.get(at), json.loads(json.dumps(item)))
                if plural == "pods":
                    self.server.logs[at.name] = operator.cluster.log_of(item)
        for at in there:
            self.server.remove(at, propagation="Background")

    def write_kubeconfig(self, namespace: str = "lab") -> None:
        context = {"cluster": "here", "user": "me", "namespace": namespace}
        config: Object = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": context}],
            "clusters": [{"name": "here", "cluster": {"server": self.server.url}}],
            "users": [{"name": "me", "user": {"token": "secret"}}],
        }
        self.kubeconfig.write_text(json.dumps(config))

    async def start(self, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sppo_operator", *arguments),
            cwd=self.folder,
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig), "COLUMNS": "120"} | environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, **environment: str) -> Done:
        return await end_of(await self.start(*arguments, **environment))


async def end_of(process: asyncio.subprocess.Process) -> Done:
    out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    assert b"Traceback" not in err, err.decode()
    return Done(process.returncode, out.decode(), err.decode())


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[ServedCluster]:
    async with ApiServer().served() as server:
        cluster = ServedCluster(server, folder)
        cluster.write_kubeconfig()
        yield cluster


def with_cluster(folder: Path, scenario: Callable[[ServedCluster], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        async with served(folder) as cluster:
            return await scenario(cluster)

    return asyncio.run(inside())


def ended(**spec: Any) -> SimulatedOperator:
    operator = SimulatedOperator(iterations=1, **spec)
    operator.finish()
    return operator


def failed(*behaviour: Any) -> SimulatedOperator:
    operator = SimulatedOperator(iterations=1, retries={"limit": 1})
    operator.cluster.script["score 1"] = list(behaviour)
    operator.settle()
    return operator


def ask(folder: Path, operator: SimulatedOperator | None, *arguments: str, **logs: str) -> Done:
    """What the command says about what the operator came to; `logs` are those of Jobs, `_` for `-`."""

    async def scenario(cluster: ServedCluster) -> Done:
        if operator:
            operator.cluster.logs |= {f"demo-{job.replace('_', '-')}": text for job, text in logs.items()}
            cluster.show(operator)
        return await cluster.run(*arguments)

    done: Done = with_cluster(folder, scenario)
    return done
