"""Where commands read about one run from: a cluster or a folder, with the same questions to both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sppo_operator.commands.overview import Resource
from sppo_operator.decide import Step
from sppo_operator.errors import ServerError
from sppo_operator.results import Material, Results

Object = dict[str, Any]


class NotStartedError(ServerError):
    """A pod that has not begun to write a log."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The attempt, and the worker if one was asked for, whose log is wanted."""

    step: Step
    attempt: int
    worker: int | None = None


class Log(ABC):
    """The log of one process: of an attempt on this machine, or of one pod."""

    title: str
    """Such as `pod demo-i1-train-a1-0-x7k2p (worker 0)`, or the path of a file."""
    others: tuple[str, ...] = ()
    """Titles of logs of the same attempt that were not chosen."""

    @abstractmethod
    def lines(self, *, follow: bool, tail: int | None = None) -> AsyncIterator[bytes]:
        """The last `tail` lines, or all. With `follow` new ones too, until the process ends. Raises UserError."""


class Source(ABC):
    """An asynchronous context manager. Every method raises UserError with a remedy."""

    results: Results | None = None
    """The folder of the artifacts, if this machine can read it."""

    @abstractmethod
    async def resource(self) -> Resource:
        """The run as it is now. Raises MissingError if it is not there."""

    @abstractmethod
    async def log(self, wanted: Wanted) -> Log:
        """The log that explains the attempt best. Raises MissingError if nothing is left of it."""

    async def log_after(self, wanted: Wanted, log: Log) -> Log | None:
        """Where the attempt goes on after this log ended: another one, or the same if that may have more."""
        return None

    @abstractmethod
    async def events(self) -> list[Object]:
        """The newest Events about the run, oldest first."""

    @abstractmethod
    async def material(self, resource: Resource, say: Callable[[str], object]) -> Material:
        """What a report shows beyond the status; what is missing says why, and so does `say`."""

    def place_of_model(self, iteration: int, recorded: str) -> str:
        """Where the model is, by the status or better."""
        return recorded

    def place_of_report(self, recorded: str) -> str:
        """Where the report is that the run wrote itself."""
        return recorded

    @abstractmethod
    def report_path(self, resource: Resource) -> Path:
        """Where the report goes unless the user says otherwise."""

    @abstractmethod
    def stopped(self, resource: Resource) -> str:
        """Why nothing goes on though the run has not ended, with the remedy; empty if something does."""

    @abstractmethod
    def command(self, verb: str) -> str:
        """The command line of `sppo VERB` for this run."""

    @abstractmethod
    def kubectl(self, verb: str) -> str:
        """The command line of `kubectl VERB` for this run, if it is on a cluster."""

    @abstractmethod
    def go_on(self) -> str:
        """The command line that lets a failed run go on."""
