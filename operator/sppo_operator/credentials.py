"""The credentials of a client: renewed in time, beside its calls, since a program that gives them may take long."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable

from sppo_operator.connection import Connection, Login
from sppo_operator.errors import UnavailableError, UserError

FILE_SECONDS = 60.0
"""How long those of files are used before they are read again: the kubelet rotates the token of a service account."""
EARLY_SHARE = 0.9
"""The share of their time after which others are asked for."""
PAUSE_SECONDS = 1.0
"""Between two logins, if the first was of no use."""


class Credentials:
    """`clock` counts for how long credentials are used, `now` is the time that they expire by."""

    def __init__(
        self, login: Login, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._login = login
        self._clock = clock
        self._now = now
        self._read_at = self._renew_at = self._good_until = clock()
        self._task: asyncio.Task[UserError | None] | None = None
        connection = login()
        self._use(connection, connection.tls())

    async def current(self) -> Connection:
        """Those to use now; `tls` belongs to them. Raises UnavailableError.

        As long as the old ones are good nobody waits for new ones: a lease has to be renewed meanwhile.
        """
        if self._clock() >= min(self._renew_at, self._good_until):
            self._task = self._task or asyncio.create_task(self._renew())
            if self._clock() >= self._good_until and (error := await asyncio.shield(self._task)):
                raise UnavailableError(str(error), reason="Unauthorized") from error
        return self.connection

    def refused(self, connection: Connection) -> None:
        """The API server did not accept them."""
        if connection is self.connection:
            self._good_until = min(self._good_until, self._read_at + PAUSE_SECONDS)

    async def _renew(self) -> UserError | None:
        try:
            connection = await asyncio.to_thread(self._login)
            self._use(connection, self.tls if connection == self.connection else connection.tls())
        except UserError as error:
            self._renew_at = self._clock() + PAUSE_SECONDS
            return error
        finally:
            self._task = None
        return None

    def _use(self, connection: Connection, tls: ssl.SSLContext | None) -> None:
        self.connection, self.tls = connection, tls
        self._read_at = self._clock()
        if connection.expires is None:
            self._renew_at = self._good_until = self._read_at + FILE_SECONDS
        else:  # never at every call, however wrong a clock is
            left = max(connection.expires - self._now(), FILE_SECONDS)
            self._good_until = self._read_at + left
            self._renew_at = self._read_at + EARLY_SHARE * left
