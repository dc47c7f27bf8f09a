"""A thin client of the API server: JSON in and out, over one aiohttp session.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp

from sppo_operator.connection import Login, connect
from sppo_operator.credentials import Credentials
from sppo_operator.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from sppo_operator.resources import resource_of

CALL_SECONDS = 10.0
CONCURRENT_CALLS = 16
PAGE_ITEMS = 500
THROTTLED_TRIES = 4
LONGEST_THROTTLE_SECONDS = 30.0

ERRORS: Mapping[int, type[ApiError]] = {
    400: RefusedError,
    401: UnavailableError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: UnavailableError,
    413: RefusedError,
    422: RefusedError,
    429: UnavailableError,
}


Object = dict[str, Any]


class Listing(list[Object]):
    """The objects of a LIST, and the resource version that they were read at."""

    version = ""


def _whole(item: Object) -> Object:
    return item


class Api:
    """Calls to the API server; an asynchronous context manager. All methods raise ApiError.

    `calls` counts them by verb and resource, as RBAC names them, and HTTP status (0: no answer); `observe` is called
    with the same and the seconds that each took.
    """

    def __init__(
        self,
        login: Login = connect,
        *,
        concurrent_calls: int = CONCURRENT_CALLS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        observe: Callable[[str, str, int, float], object] = lambda verb, resource, status, seconds: None,
    ) -> None:
        self.calls: Counter[tuple[str, str, int]] = Counter()
        self._observe = observe
        self._credentials = Credentials(login, clock)
        self._sleep = sleep
        self._slots = asyncio.Semaphore(concurrent_calls)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    @property
    def namespace(self) -> str:
        """Where the credentials say that names without a namespace are looked up."""
        return self._credentials.connection.namespace

    async def get(self, path: str) -> dict[str, Any]:
        return _object(await self._call("get", "GET", path))

    async def list(
        self, path: str, selector: str = "", *, fields: str = "", trim: Callable[[Object], Object] = _whole
    ) -> Listing:
        """All objects of a collection, page by page, with the apiVersion and kind that a watch would show.

        `selector` is one of labels, `fields` one of fields. `trim` takes from each what the caller does not need,
        before the next page comes.
        """
        listing = Listing()
        query = {"limit": str(PAGE_ITEMS)} | ({"labelSelector": selector} if selector else {})
        query |= {"fieldSelector": fields} if fields else {}
        while True:
            try:
                page = _object(await self._call("list", "GET", path, query=query))
            except UnavailableError as error:
                if error.status != 410 or "continue" not in query:
                    raise
                listing.clear()  # the first pages are too old to go on from
                del query["continue"], query["limit"]
                continue
            kind = {"apiVersion": page["apiVersion"], "kind": page["kind"].removesuffix("List")}
            listing.extend(trim(kind | item) for item in page["items"])
            if not (token := page["metadata"].get("continue")):
                listing.version = page["metadata"]["resourceVersion"]
                return listing
            query["continue"] = token

    async def create(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """POST to a collection; fields that the API server does not know are refused."""
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return _object(await self._call("create", "POST", path, query=query, body=body))

    async def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """PUT an object; its resourceVersion makes this fail with ConflictError if it changed since it was read."""
        return _object(await self._call("update", "PUT", path, query={"fieldValidation": "Strict"}, body=body))

    async def merge_patch(self, path: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        return _object(await self._call("patch", "PATCH", path, body=patch, media_type="application/merge-patch+json"))

    async def delete(self, path: str, *, uid: str, propagation: str = "Background") -> None:
        """Delete the object of this uid; ConflictError if another one has its name by now."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
        await self._call("delete", "DELETE", path, body={**body, "propagationPolicy": propagation})

    async def text(self, path: str, seconds: float | None = None, /, **query: str) -> str:
        """What is not JSON, such as a pod's log; `seconds` is how long it may take, if not as long as any call."""
        return (await self._call("get", "GET", path, query=query, seconds=seconds)).decode("utf-8", "replace")

    async def lines(self, path: str, **query: str) -> AsyncIterator[bytes]:
        """The lines of an answer that comes bit by bit and may never end, such as a log that is followed."""
        connection = await self._credentials.current()
        try:
            async with self._session.get(
                connection.server + path,
                params=query,
                headers=connection.headers(),
                ssl=self._credentials.tls or True,
                proxy=connection.proxy_url,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CALL_SECONDS),
            ) as response:
                if response.status == 401:
                    self._credentials.refused(connection)
                if response.status >= 400:
                    raise _error(response.status, await response.read(), f"get {path}")
                rest = b""
                async for chunk in response.content.iter_any():
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        yield line
                if rest:
                    yield rest
        except (aiohttp.ClientError, OSError) as error:
            raise _unanswered(f"get {path}", error) from error

    async def _call(
        self,
        verb: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        media_type: str = "application/json",
        seconds: float | None = None,
    ) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        async with self._slots:  # also while it waits for a server that is too busy: that is what the server asks for
            for tries_left in reversed(range(THROTTLED_TRIES)):
                status, headers, content = await self._send(verb, method, path, query, data, media_type, seconds)
                if status == 429 and tries_left:
                    await self._sleep(_retry_after(headers))
                elif status >= 400:
                    raise _error(status, content, f"{verb} {path}")
                else:
                    break
        return content

    async def _send(
        self,
        verb: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        data: bytes | None,
        media_type: str,
        seconds: float | None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        status = 0
        connection = await self._credentials.current()
        began = time.perf_counter()
        try:
            async with self._session.request(
                method,
                connection.server + path,
                params=query,
                data=data,
                headers={**connection.headers(), "Content-Type": media_type},
                ssl=self._credentials.tls or True,
                proxy=connection.proxy_url,
                timeout=aiohttp.ClientTimeout(total=seconds or CALL_SECONDS),
            ) as response:
                status = response.status
                return status, response.headers, await response.read()
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            raise _unanswered(f"{verb} {path}", error) from error
        finally:
            resource = resource_of(path)
            self.calls[verb, resource, status] += 1
            self._observe(verb, resource, status, time.perf_counter() - began)
            if status == 401:
                self._credentials.refused(connection)


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise UnavailableError(f"the API server answered with something else than JSON: {content[:80]!r}") from error
    if not isinstance(value, dict):
        raise UnavailableError(f"the API server answered with something else than an object: {content[:80]!r}")
    return value


def _error(status: int, content: bytes, call: str) -> ApiError:
    """The error that a Status object, or whatever a proxy on the way said, stands for."""
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    answer = body if isinstance(body, dict) else {"message": content[:200].decode("utf-8", "replace")}
    reason, message = str(answer.get("reason", "")), str(answer.get("message", ""))
    kind = ERRORS.get(status, UnavailableError if status >= 500 else ApiError)
    if kind is ConflictError and reason == "AlreadyExists":
        kind = AlreadyExistsError
    return kind(message or f"HTTP status {status}", call=call, status=status, reason=reason)


def _unanswered(call: str, error: BaseException) -> UnavailableError:
    return UnavailableError(f"no answer from the API server: {_cause(error)}", call=call, reason="Timeout")


def _cause(error: BaseException) -> str:
    """What failed, in the same words every time: the text of aiohttp has addresses of objects in it."""
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return f"{error.host}:{error.port}: {os.strerror(number) if number else type(error.os_error).__name__}"
    return str(error) or type(error).__name__


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        seconds = float(headers.get("Retry-After", "1"))
    except ValueError:  # a date
        seconds = 1.0
    return min(max(seconds, 0.1), LONGEST_THROTTLE_SECONDS)
