"""`python -m sppo_operator.main`: the operator.

Any number of processes may run. One of them, elected by a Lease, leads; a process leads once, and whatever ends its
term ends it. Exit status: 0 after SIGTERM or SIGINT; 64 if a flag or the kubeconfig must be changed; 1 if the lease
was lost or the operator failed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from sppo_operator.api import Api
from sppo_operator.errors import UserError
from sppo_operator.exposition import Exposition
from sppo_operator.health import health_server
from sppo_operator.lease import Elector
from sppo_operator.logs import configure_logging
from sppo_operator.metrics import Metrics
from sppo_operator.settings import Settings
from sppo_operator.term import Term

STOP_SECONDS = 5.0
"""How long passes under way may take to come to their end."""

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    try:
        settings = Settings.parse(sys.argv[1:] if arguments is None else arguments, os.environ)
        configure_logging(settings.log_level, settings.log_format)
        signal.signal(signal.SIGALRM, _end_at_once)
        sys.exit(asyncio.run(operate(settings)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


async def operate(settings: Settings) -> int:
    """Wait to be elected, lead, and come to an end; returns the exit status. Raises UserError."""
    asked, metrics = asyncio.create_task(_asked_to_stop()), Metrics()
    # The lease has a client of its own: its renewals must not wait behind other calls.
    async with Api(observe=metrics.called) as api, Api(observe=metrics.called) as lease_api:
        elector = Elector(lease_api, settings, fence=fence)
        term = Term(api, settings, metrics=metrics)
        metrics.leader.set_function(lambda: elector.seconds_left() > 0)

        def runs() -> list[dict[str, Any]] | None:
            return term.runs() if elector.seconds_left() > 0 else None

        def live() -> str:
            return elector.fault() or term.fault()

        def ready() -> str:
            leading = elector.seconds_left() > 0
            return elector.unreached() or ("the cache is not filled yet" if leading and not term.primed else "")

        async with health_server(settings.http_port, live, ready, Exposition(metrics, runs)):
            log.info("%s waits to lead", settings.identity)
            elected = asyncio.create_task(elector.acquire())
            await _any_of(asked, elected)
            if elected.done():
                elected.result()
                return await _lead(elector, term, asked)
            return 0


async def _lead(elector: Elector, term: Term, asked: asyncio.Task[None]) -> int:
    work, holding = asyncio.create_task(term.run()), asyncio.create_task(elector.hold())
    await _any_of(asked, work, holding)
    # A second for what the event loop does late: the lease must be good until nothing acts any more.
    await term.stop(min(STOP_SECONDS, elector.seconds_left() - 1))
    if holding.done():
        log.critical("the lease is lost: ending")
        logging.shutdown()
        os._exit(1)  # whatever still hangs
    holding.cancel()
    await asyncio.wait([holding])
    await elector.release()
    work.cancel()
    await asyncio.wait([work])
    if not work.cancelled() and (error := work.exception()):
        log.critical("the operator failed", exc_info=error)
        return 1
    return 0


def fence(seconds: float) -> None:
    """End the process after so many seconds unless called again; 0 calls it off.

    The system's timer needs no event loop: it also ends a process that hangs, or that was frozen and wakes up when
    another one leads.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _end_at_once(*_: int | FrameType | None) -> NoReturn:
    # A handler, since process 1 of a container ignores signals without one.
    os.write(sys.stderr.fileno(), b"the lease was not renewed in time: ending at once\n")
    os._exit(1)


async def _asked_to_stop() -> None:
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    await asked.wait()
    log.info("asked to stop")


async def _any_of(*tasks: asyncio.Task[None]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


if __name__ == "__main__":
    main()
