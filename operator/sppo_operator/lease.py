"""Leader election with a Lease of coordination.k8s.io, by the rules of client-go's leaderelection.

Clocks of two machines are never compared: a candidate counts the lease's duration on its own monotonic clock from the
moment when it saw the lease change. The holder counts from before it sent its last renewal, so it always finds its
time over before anybody else can. resourceVersion decides between two that try at the same moment.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from sppo_operator.api import Api
from sppo_operator.errors import AlreadyExistsError, ApiError, ConflictError, NotFoundError
from sppo_operator.resources import lease, leases
from sppo_operator.settings import Settings

ANSWER_SECONDS = 30.0
"""How old the last answer about the lease may be for the API server to count as reached."""
RETRY_JITTER = 0.2

log = logging.getLogger(__name__)


class Elector:
    """One candidate: `acquire`, then `hold` while it leads, then `release` once nothing acts any more.

    `fence(seconds)` is called at every renewal and has to end the process after that time, come what may, unless it is
    called again; `fence(0)` calls it off.
    """

    def __init__(
        self,
        api: Api,
        settings: Settings,
        *,
        fence: Callable[[float], object],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._settings = settings
        self._fence = fence
        self._clock = clock
        self._sleep = sleep
        self._lease: dict[str, Any] | None = None
        self._spec: dict[str, Any] = {}
        self._changed_at = -math.inf
        self._renewed_at = -math.inf
        self._answered_at = -math.inf
        self._complaint = ""

    @property
    def holder(self) -> str:
        """Who had the lease when it was last read; empty if nobody."""
        return self._spec.get("holderIdentity") or ""

    def seconds_left(self) -> float:
        """How long this process is sure to be the only leader; not positive if it is not sure."""
        return self._renewed_at + self._settings.lease_seconds - self._clock()

    def unreached(self) -> str:
        """Why this candidate could not take over now; empty if it could."""
        if self._clock() <= self._answered_at + ANSWER_SECONDS:
            return ""
        return f"no answer from the API server about the lease: {self._complaint or 'not asked yet'}"

    def fault(self) -> str:
        """Why a leader should not live any more; empty if it may."""
        if self._renewed_at == -math.inf or self.seconds_left() > 0:
            return ""
        return f"the lease was not renewed for {self._clock() - self._renewed_at:.0f} s"

    async def acquire(self) -> None:
        """Return as soon as this process is the leader."""
        while not await self._try(self._settings.renew_seconds):
            await self._sleep(self._settings.retry_seconds * (1 + RETRY_JITTER * random.random()))

    async def hold(self) -> None:
        """Renew the lease; return when it was not renewed for `renew_seconds`, or is somebody else's."""
        while (left := self._seconds_to_renew()) > 0:
            await self._sleep(min(left, self._settings.retry_seconds))
            # Half the time for one try: an answer that got lost leaves time for another one.
            limit = min(self._seconds_to_renew(), self._settings.renew_seconds / 2)
            renewed = limit > 0 and await self._try(limit)
            if not renewed and self.holder not in ("", self._settings.identity):
                log.error("%s leads now", self.holder)
                self._renewed_at = -math.inf

    async def release(self) -> None:
        """Give the lease up, so that another candidate leads at once."""
        if self._lease is None or self.seconds_left() <= 0:
            return
        spec = self._next_spec() | {"holderIdentity": None, "leaseDurationSeconds": 1}
        try:
            async with asyncio.timeout(self._settings.retry_seconds):
                await self._api.replace(self._path(), {**self._lease, "spec": spec})
        except (ApiError, TimeoutError) as error:
            log.warning("the lease was not released, so a standby has to wait until it is over: %s", error)
        self._renewed_at = -math.inf
        self._fence(0)

    async def attempt(self) -> bool:
        """Try once to take or renew the lease; True if this process holds it now. Raises ApiError."""
        began = self._clock()
        if self._lease is None or self.holder != self._settings.identity:
            await self._read()
        if not self._is_free():
            return False
        try:
            written = await self._write()
        except (AlreadyExistsError, ConflictError, NotFoundError):  # somebody was faster
            self._lease = None
            return False
        self._observe(written)
        self._renewed_at = began
        self._fence(self.seconds_left())
        return True

    async def _try(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                held = await self.attempt()
        except (ApiError, TimeoutError) as error:
            self._complain(str(error) or f"no answer within {seconds:g} s")
            return False
        self._answered_at = self._clock()
        self._complaint = ""
        return held

    async def _read(self) -> None:
        try:
            self._observe(await self._api.get(self._path()))
        except NotFoundError:
            self._lease, self._spec = None, {}

    async def _write(self) -> dict[str, Any]:
        spec = self._next_spec()
        if self._lease is not None:
            return await self._api.replace(self._path(), {**self._lease, "spec": spec})
        metadata = {"namespace": self._settings.lease_namespace, "name": self._settings.lease_name}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        return await self._api.create(leases(self._settings.lease_namespace), body)

    def _observe(self, found: dict[str, Any]) -> None:
        self._lease = found
        if found["spec"] != self._spec:
            self._spec, self._changed_at = found["spec"], self._clock()

    def _is_free(self) -> bool:
        if self.holder in ("", self._settings.identity):
            return True
        duration = self._spec.get("leaseDurationSeconds") or self._settings.lease_seconds
        return self._clock() >= self._changed_at + duration

    def _next_spec(self) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        renewal = self.holder == self._settings.identity
        changes = self._spec.get("leaseTransitions") or 0
        return self._spec | {
            "holderIdentity": self._settings.identity,
            "leaseDurationSeconds": self._settings.lease_seconds,
            "acquireTime": self._spec["acquireTime"] if renewal else now,
            "renewTime": now,
            "leaseTransitions": changes + 1 if self._lease is not None and not renewal else changes,
        }

    def _seconds_to_renew(self) -> float:
        return self._renewed_at + self._settings.renew_seconds - self._clock()

    def _path(self) -> str:
        return lease(self._settings.lease_namespace, self._settings.lease_name)

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            log.warning("the lease was neither taken nor renewed: %s", text)
        self._complaint = text
