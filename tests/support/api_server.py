"""The simulated API server over HTTP, with watches: what real clients talk to."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from aiohttp import web
from simulated_api import At, Object, SimulatedApi
from sppo_operator.connection import Connection
from sppo_operator.errors import ApiError

RESOURCES = {
    "/api/v1": [("namespaces", "Namespace"), ("pods", "Pod"), ("services", "Service"), ("events", "Event")],
    "/apis/batch/v1": [("jobs", "Job")],
    "/apis/coordination.k8s.io/v1": [("leases", "Lease")],
    "/apis/sppo.dev/v1alpha1": [("spporuns", "SPPORun")],
}
KINDS = {plural: (root, kind) for root, resources in RESOURCES.items() for plural, kind in resources}


@dataclass
class Answer:
    """What to answer instead of what was asked for; a status of 0 cuts the connection."""

    status: int
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class ApiServer(SimulatedApi):
    """`answers` are given to the next calls, in order; `requests` are those that came."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: deque[Answer] = deque()
        self.requests: list[web.BaseRequest] = []
        self.url = ""
        self.logs: dict[str, str] = {}
        self._history: list[tuple[int, At, str, Object]] = []
        self._news = asyncio.Event()
        self._watches: list[web.BaseRequest] = []

    def login(self) -> Connection:
        return Connection(server=self.url, token="secret")

    def log_of(self, pod: Object) -> str:
        return self.logs[pod["metadata"]["name"]]

    def drop_watches(self) -> None:
        """Cut the connections of all watches, as a restart of the API server does."""
        for request in self._watches:
            if request.transport:
                request.transport.abort()

    @asynccontextmanager
    async def served(self) -> AsyncIterator[ApiServer]:
        runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    def _tell(self, at: At, item: Object, *, present: bool) -> None:
        super()._tell(at, item, present=present)
        known = any(at == held for _, held, kind, _ in self._history if kind != "DELETED")
        change = "DELETED" if not present else "MODIFIED" if known else "ADDED"
        self._history.append((int(item["metadata"]["resourceVersion"]), at, change, item))
        self._news.set()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        if self.answers:
            answer = self.answers.popleft()
            if not answer.status:
                assert request.transport
                request.transport.abort()
            return web.json_response(answer.body, status=answer.status or 500, headers=dict(answer.headers))
        try:
            return await self._carry_out(request)
        except ApiError as error:
            status = {"kind": "Status", "message": error.message, "reason": error.reason, "code": error.status}
            return web.json_response(status, status=error.status)

    async def _carry_out(self, request: web.BaseRequest) -> web.StreamResponse:
        if (discovery := _discovery(request.path)) is not None:
            return web.json_response(discovery)
        at = At.of(request.path)
        if request.method != "GET":
            return web.json_response(await self._write(request))
        if not at.name and "watch" in request.query:
            return await self._watch(request, at)
        if at.part == "log":
            return web.Response(text=_since(await self.text(request.path, **request.query), request.query))
        return web.json_response(await self.get(request.path) if at.name else self._list(request, at))

    async def _write(self, request: web.BaseRequest) -> Object | None:
        path, body = request.path, await request.json()
        match request.method:
            case "POST":
                return await self.create(path, body, dry_run="dryRun" in request.query)
            case "PUT":
                return await self.replace(path, body)
            case "PATCH":
                return await self.merge_patch(path, body)
            case "DELETE":
                await self.delete(path, uid=body["preconditions"]["uid"], propagation=body["propagationPolicy"])
                return None
        raise AssertionError(f"{request.method} {path} is nothing that the operator should ask for")

    def _list(self, request: web.BaseRequest, at: At) -> Object:
        """One page; the token to go on with is the number of the items before."""
        items = [item for item in self.all(at.plural, "", at.namespace) if _selected(request, item)]
        first = int(request.query.get("continue", 0))
        last = first + int(request.query.get("limit", len(items)))
        metadata = {"resourceVersion": str(self.version)} | ({"continue": str(last)} if last < len(items) else {})
        root, kind = KINDS[at.plural]
        version = root.removeprefix("/apis/").removeprefix("/api/")
        # The items of a LIST do not say what they are.
        bare = [{key: value for key, value in item.items() if key not in ("apiVersion", "kind")} for item in items]
        return {"kind": f"{kind}List", "apiVersion": version, "metadata": metadata, "items": bare[first:last]}

    async def _watch(self, request: web.BaseRequest, at: At) -> web.StreamResponse:
        self._watches.append(request)
        response = web.StreamResponse()
        await response.prepare(request)
        seen = int(request.query["resourceVersion"])
        while True:
            self._news.clear()
            for version, held, change, item in list(self._history):
                if version > seen and held.plural == at.plural and at.namespace in ("", held.namespace):
                    seen = version
                    if _selected(request, item):
                        await response.write(json.dumps({"type": change, "object": item}).encode() + b"\n")
            await self._news.wait()


def _since(log: str, query: Mapping[str, str]) -> str:
    """As a kubelet shows it; every line was written half a second after the one before."""
    if "timestamps" not in query:
        return log
    lines = [f"2026-01-31T12:00:{n / 2:012.9f}Z {line}" for n, line in enumerate(log.splitlines(keepends=True))]
    since = query.get("sinceTime", "").partition(".")[0]  # the API server cuts it to seconds
    return "".join(line for line in lines if line.partition(".")[0] >= since)


def _selected(request: web.BaseRequest, item: Object) -> bool:
    """Whether the object has what the selectors ask for: `label` or `label=value`, and `a.field=value`."""
    field, _, wanted = request.query.get("fieldSelector", "").partition("=")
    if field and reduce(lambda part, name: part.get(name, {}), field.split("."), item) != wanted:
        return False
    label, equals, value = request.query.get("labelSelector", "").partition("=")
    labels = item["metadata"].get("labels", {})
    return not label or (labels.get(label) == value if equals else label in labels)


def _discovery(path: str) -> Object | None:
    groups = [root.split("/")[2:] for root in RESOURCES if root.startswith("/apis/")]
    if path == "/api":
        return {"versions": ["v1"]}
    if path == "/apis":
        versions = [(group, {"groupVersion": f"{group}/{version}", "version": version}) for group, version in groups]
        return {"groups": [{"name": name, "versions": [one], "preferredVersion": one} for name, one in versions]}
    if path in RESOURCES:
        verbs = ["list", "watch", "patch"]
        return {
            "resources": [
                {
                    "name": plural,
                    "singularName": kind.lower(),
                    "namespaced": kind != "Namespace",
                    "kind": kind,
                    "verbs": verbs,
                }
                for plural, kind in RESOURCES[path]
            ]
        }
    return None
