"""The watches of runs, Jobs and pods: kopf's, in a thread with an event loop of its own.

kopf.operator() takes over the signals of the process that it runs in and ends by cancelling every task of its loop that
began after it; in a thread of its own it can do neither. Only `on.event` handlers are registered: they add no
finalizers and no annotations. kopf does not say what vanished while it was not watching; `Term` lists for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import kopf

from sppo_operator.api import PAGE_ITEMS
from sppo_operator.cache import Kind
from sppo_operator.connection import Connection, Login, connect
from sppo_operator.errors import SPPOError
from sppo_operator.jobs import RUN_LABEL
from sppo_operator.resources import GROUP, PLURAL, VERSION
from sppo_operator.settings import Settings

STOP_SECONDS = 3.0
LONGEST_BACKOFF_SECONDS = 30.0
WATCHED = {Kind.RUN: (GROUP, VERSION, PLURAL), Kind.JOB: ("batch", "v1", "jobs"), Kind.POD: ("", "v1", "pods")}

Seen = Callable[[Kind, bool, Mapping[str, Any]], None]
"""Called with every event: its kind, whether the object is gone, and the object."""


class Watches:
    """Calls `seen`, in the event loop of the caller of `run`, whenever a watched object changes."""

    def __init__(self, settings: Settings, seen: Seen, login: Login = connect) -> None:
        self._namespaces = settings.namespaces
        self._seen = seen
        self._login = login
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled. Raises what kopf raised, or SPPOError if it ended without a reason."""
        mine = asyncio.get_running_loop()
        ended: asyncio.Future[None] = mine.create_future()
        # A daemon: kopf may wait for the API server for longer than the process has time to end.
        threading.Thread(target=self._run_kopf, args=(mine, ended), name="kopf", daemon=True).start()
        try:
            await asyncio.shield(ended)
            raise SPPOError("kopf stopped watching by itself")
        finally:
            with contextlib.suppress(RuntimeError):  # its loop is closed: it ended already
                self._loop.call_soon_threadsafe(self._stop.set)
            await asyncio.wait([ended], timeout=STOP_SECONDS)

    def _run_kopf(self, theirs: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> None:
        error: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(
                    kopf.operator(
                        registry=self._registry(theirs),
                        settings=_kopf_settings(),
                        standalone=True,
                        clusterwide=not self._namespaces,
                        namespaces=self._namespaces,
                        stop_flag=self._stop,
                    )
                )
        except BaseException as caught:  # noqa: BLE001 - raised again by `run`, in the thread that decides
            error = caught
        with contextlib.suppress(RuntimeError):  # the process ends and waited long enough
            theirs.call_soon_threadsafe(_settle, ended, error)

    def _registry(self, theirs: asyncio.AbstractEventLoop) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry, id="login")
        async def log_in(**_: Any) -> kopf.ConnectionInfo:
            return _for_kopf(self._login())

        for kind, resource in WATCHED.items():

            @kopf.on.event(*resource, registry=registry, id=kind.value)
            async def tell(event: Any, kind: Kind = kind, **_: Any) -> None:
                theirs.call_soon_threadsafe(self._seen, kind, event["type"] == "DELETED", event["object"])

        return registry


def _settle(ended: asyncio.Future[None], error: BaseException | None) -> None:
    if ended.cancelled():
        return
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)


def _for_kopf(connection: Connection) -> kopf.ConnectionInfo:
    return kopf.ConnectionInfo(
        server=connection.server,
        ca_data=connection.ca or None,
        insecure=connection.insecure,
        certificate_data=connection.certificate or None,
        private_key_data=connection.key or None,
        token=connection.token or None,
        username=connection.username or None,
        password=connection.password or None,
        default_namespace=connection.namespace,
        proxy_url=connection.proxy_url,
    )


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # the kinds are known, and no right to list CRDs and namespaces is needed
    settings.posting.enabled = False
    settings.watching.chunk_size = PAGE_ITEMS
    settings.watching.connect_timeout = 10
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.reconnect_backoff = 1.0
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = _Backoffs()
    settings.queueing.worker_limit = None
    settings.queueing.idle_timeout = 2.0
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    for kind in (Kind.JOB, Kind.POD):
        settings.watching.label_selectors[WATCHED[kind]] = RUN_LABEL
    return settings


class _Backoffs:
    """Retries without an end: kopf gives a watch up with the last backoff, and a control plane may be away for long."""

    def __iter__(self) -> Iterator[float]:
        seconds = 1.0
        while True:
            yield seconds * random.uniform(0.5, 1.0)
            seconds = min(2 * seconds, LONGEST_BACKOFF_SECONDS)


class _NoDiffBase(kopf.DiffBaseStorage):
    """Stores nothing. The default one copies every object at every event, for handlers that are not used here."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Stores nothing: `on.event` handlers have no state."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence
