"""The client against the simulated API server, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from api_server import Answer, ApiServer
from sppo_operator import api as module
from sppo_operator import resources
from sppo_operator.api import CALL_SECONDS, Api
from sppo_operator.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)

JOBS, JOB = resources.jobs("lab"), resources.job("lab", "j")


def job(name: str = "j", **labels: str) -> dict[str, Any]:
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels}, "spec": {}}


def run(scenario: Callable[[ApiServer, Api], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        async with ApiServer().served() as server, Api(server.login) as api:
            return await scenario(server, api)

    return asyncio.run(inside())


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        (resources.runs(), "spporuns"),
        (resources.run_status("lab", "demo"), "spporuns/status"),
        (resources.jobs("lab"), "jobs"),
        (resources.pod_log("lab", "p"), "pods/log"),
        (resources.pods(), "pods"),
        (resources.lease("lab", "l"), "leases"),
        ("/api/v1/namespaces/lab", "namespaces"),
    ],
)
def test_resources_are_counted_as_rights_name_them(path: str, resource: str) -> None:
    assert resources.resource_of(path) == resource


def test_an_object_from_its_creation_to_its_end() -> None:
    async def scenario(server: ApiServer, api: Api) -> None:
        tried = await api.create(JOBS, job(), dry_run=True)
        assert "resourceVersion" not in tried["metadata"]
        created = await api.create(JOBS, job())
        assert await api.get(JOB) == created
        replaced = await api.replace(JOB, {**created, "spec": {"suspend": True}})
        patched = await api.merge_patch(JOB, {"spec": {"suspend": None, "parallelism": 2}})
        assert (replaced["spec"], patched["spec"]) == ({"suspend": True}, {"parallelism": 2})
        with pytest.raises(ConflictError):
            await api.replace(JOB, created)
        with pytest.raises(ConflictError):
            await api.delete(JOB, uid="another")
        await api.delete(JOB, uid=created["metadata"]["uid"])
        with pytest.raises(NotFoundError):
            await api.get(JOB)
        assert api.calls["create", "jobs", 200] == 2
        assert (
            api.calls["update", "jobs", 409] == api.calls["delete", "jobs", 409] == api.calls["get", "jobs", 404] == 1
        )
        posted = server.requests[0]
        assert dict(posted.query) == {"fieldValidation": "Strict", "dryRun": "All"}
        assert posted.headers["Authorization"] == "Bearer secret"

    run(scenario)


@pytest.mark.parametrize("page", [1, 2, 3, 500])
def test_a_list_goes_through_all_pages(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_ITEMS", page)

    async def scenario(server: ApiServer, api: Api) -> None:
        for number in range(5):
            server.add("jobs", {**job(f"j{number}", **{"sppo.dev/run": "demo"}), "metadata": {
                "name": f"j{number}", "namespace": "lab", "labels": {"sppo.dev/run": "demo"}}})  # fmt: skip
        server.add("jobs", {"metadata": {"name": "other", "namespace": "lab"}})
        listing = await api.list(JOBS, selector="sppo.dev/run")
        assert [item["metadata"]["name"] for item in listing] == ["j0", "j1", "j2", "j3", "j4"]
        assert {(item["apiVersion"], item["kind"]) for item in listing} == {("batch/v1", "Job")}
        assert listing.version == str(server.version)
        assert await api.list(JOBS, selector="sppo.dev/run=another") == []

    run(scenario)


def test_a_list_whose_pages_grew_too_old_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_ITEMS", 1)

    async def scenario(server: ApiServer, api: Api) -> None:
        first = {"kind": "JobList", "apiVersion": "batch/v1", "metadata": {"continue": "1"}, "items": [{"page": 1}]}
        server.answers.extend([Answer(200, first), Answer(410, {"reason": "Expired", "message": "too old"})])
        for name in ("a", "b"):
            server.add("jobs", {"metadata": {"name": name, "namespace": "lab"}})
        assert [item["metadata"]["name"] for item in await api.list(JOBS)] == ["a", "b"]
        assert dict(server.requests[-1].query) == {}

    run(scenario)


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (400, "BadRequest", RefusedError),
        (401, "Unauthorized", UnavailableError),
        (403, "Forbidden", ForbiddenError),
        (404, "NotFound", NotFoundError),
        (409, "AlreadyExists", AlreadyExistsError),
        (409, "Conflict", ConflictError),
        (413, "RequestEntityTooLarge", RefusedError),
        (418, "", ApiError),
        (422, "Invalid", RefusedError),
        (500, "InternalError", UnavailableError),
        (503, "ServiceUnavailable", UnavailableError),
        (504, "Timeout", UnavailableError),
    ],
)
def test_errors(status: int, reason: str, error: type[ApiError]) -> None:
    async def scenario(server: ApiServer, api: Api) -> None:
        server.answers.append(Answer(status, {"kind": "Status", "reason": reason, "message": "this is why"}))
        with pytest.raises(ApiError) as caught:
            await api.get(JOB)
        assert type(caught.value) is error
        assert (caught.value.status, caught.value.reason) == (status, reason)
        assert str(caught.value) == f"get {JOB}: this is why"

    run(scenario)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([Answer(0)] * 2, "no answer from the API server"),  # aiohttp asks again once itself
        ([Answer(502, "bad gateway")], "bad gateway"),
        ([Answer(200, [])], "something else than an object"),
    ],
    ids=["cut off", "a proxy's", "no object"],
)
def test_what_is_no_answer_of_the_api_server(answers: list[Answer], message: str) -> None:
    async def scenario(server: ApiServer, api: Api) -> None:
        server.answers.extend(answers)
        with pytest.raises(UnavailableError, match=message):
            await api.get(JOB)

    run(scenario)


def test_an_api_server_that_is_away_is_told_of_in_the_same_words() -> None:
    """They are the condition of a status: other words would be a new status every time."""

    async def scenario() -> None:
        async with ApiServer().served() as server:
            login = server.login()
        async with Api(lambda: login) as api:
            for _ in range(2):
                with pytest.raises(UnavailableError) as caught:
                    await api.get(JOB)
                host = server.url.removeprefix("http://")
                assert str(caught.value) == f"get {JOB}: no answer from the API server: {host}: Connection refused"

    asyncio.run(scenario())


def test_a_call_takes_its_time_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 0.05)

    async def scenario(server: ApiServer, api: Api) -> None:
        with pytest.raises(UnavailableError, match="no answer"):
            await api.get(f"{JOBS}?watch=1&resourceVersion=0")  # a stream without events
        assert api.calls["get", "jobs", 200] == 0

    run(scenario)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry-After": "7"}, 7.0), ({}, 1.0), ({"Retry-After": "Mon, 23 Nov 2026 03:00:00 GMT"}, 1.0), ({"Retry-After": "900"}, 30.0)],
    ids=["as told", "not told", "a date", "too long"],
)  # fmt: skip
def test_a_busy_server_is_left_alone(headers: dict[str, str], seconds: float) -> None:
    waits: list[float] = []

    async def sleep(duration: float) -> None:
        waits.append(duration)

    async def scenario() -> None:
        async with ApiServer().served() as server, Api(server.login, sleep=sleep) as api:
            server.answers.extend([Answer(429, headers=headers)] * 2)
            with pytest.raises(NotFoundError):
                await api.get(JOB)
            server.answers.extend([Answer(429, {"message": "too many requests"}, headers)] * 4)
            with pytest.raises(UnavailableError, match="too many requests"):
                await api.get(JOB)
            assert waits == [seconds] * 5
            assert api.calls["get", "jobs", 429] == 6

    asyncio.run(scenario())


def test_a_log_is_text() -> None:
    async def scenario(server: ApiServer, api: Api) -> None:
        server.add("pods", {"metadata": {"name": "p", "namespace": "lab"}})
        server.logs["p"] = "one\nzwei ≤ 3\n"
        assert await api.text(resources.pod_log("lab", "p"), tailLines="50") == "one\nzwei ≤ 3\n"
        assert dict(server.requests[0].query) == {"tailLines": "50"}

    run(scenario)


class Silent(ApiServer):
    async def text(self, path: str, seconds: float | None = None, /, **query: str) -> str:
        await asyncio.Event().wait()
        raise AssertionError


def test_the_caller_says_how_long_a_log_may_take() -> None:
    async def scenario() -> None:
        async with Silent().served() as server, Api(server.login) as api:
            began = asyncio.get_running_loop().time()
            with pytest.raises(UnavailableError, match="no answer from the API server"):
                await api.text(resources.pod_log("lab", "p"), 0.05)
            assert asyncio.get_running_loop().time() - began < CALL_SECONDS / 2

    asyncio.run(scenario())


def test_a_log_that_is_followed_comes_line_by_line() -> None:
    async def scenario(server: ApiServer, api: Api) -> None:
        path = resources.pod_log("lab", "p")
        with pytest.raises(NotFoundError):
            await anext(api.lines(path, follow="true"))
        server.add("pods", {"metadata": {"name": "p", "namespace": "lab"}})
        server.logs["p"] = "one\n\nzwei ≤ 3\nno end"
        lines = [line.decode() async for line in api.lines(path, follow="true")]
        assert lines == ["one", "", "zwei ≤ 3", "no end"]
        server.answers.append(Answer(0))
        server.answers.append(Answer(0))
        with pytest.raises(UnavailableError, match="no answer from the API server"):
            await anext(api.lines(path))

    run(scenario)
