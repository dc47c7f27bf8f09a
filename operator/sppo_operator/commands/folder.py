"""A run of `sppo run`, read from its folder."""

from __future__ import annotations

import asyncio
import shlex
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from sppo_operator.commands.overview import Resource, has_ended
from sppo_operator.commands.source import Log, Object, Source, Wanted
from sppo_operator.decide import Outcome, Stage, Step
from sppo_operator.errors import DamagedError, MissingError
from sppo_operator.results import Material, Results, WholeParts, folder_of
from sppo_operator.spec import Run
from sppo_operator.status import records_of
from sppo_operator.store import REPORT_FILE, RunFile, holder
from sppo_operator.target import FolderTarget

LOOK_SECONDS = 0.2


class FolderSource(Source):
    def __init__(self, target: FolderTarget, prog: str) -> None:
        self.folder = target.folder
        self.file = RunFile(target.folder)
        self.prog = prog
        self._stamp: tuple[int, int] | None = None
        self._resource: Resource = {}

    async def resource(self) -> Resource:
        """Read again only if the file was replaced."""
        stamp = self._stamp_now()
        if stamp is None or stamp != self._stamp:
            resource = self.file.read()
            if resource is None:
                raise MissingError(f"{self.folder} holds no run.yaml: give the --workspace of a run")
            self._stamp, self._resource = stamp, resource
            self.results = Results.of(Run.of(resource), self.folder)
        return self._resource

    async def log(self, wanted: Wanted) -> Log:
        if wanted.worker:
            raise MissingError("a run on one machine has one worker: leave --worker out")
        run = Run.of(await self.resource())
        path = Results.of(run, self.folder).logs / f"{run.job_name(wanted.step, wanted.attempt)}.log"
        if not path.exists():
            raise MissingError(f"there is no log {path}: it was removed, or there was no such attempt")
        return FileLog(path, self, wanted)

    async def events(self) -> list[Object]:
        return []

    async def material(self, resource: Resource, say: Callable[[str], object]) -> Material:
        return WholeParts(Results.of(Run.of(resource), self.folder), say)

    def place_of_model(self, iteration: int, recorded: str) -> str:
        """Within this folder: it may have been moved or copied since the status was written."""
        assert self.results is not None, "the resource that has the status was read"
        step = Step(iteration, Stage.TRAIN)
        try:
            path = self.results.policy(iteration)
        except DamagedError as error:
            return f"not known: {error}"
        if path is None:
            return f"gone: {self.results.folder / folder_of(step)} has no finished training"
        return str(path) if path.is_dir() else f"{path} (gone)"

    def place_of_report(self, recorded: str) -> str:
        path = self.folder / REPORT_FILE
        return str(path) if path.exists() else f"{path} (gone: {self.command('report')} writes it again)"

    def report_path(self, resource: Resource) -> Path:
        return self.folder / REPORT_FILE

    def stopped(self, resource: Resource) -> str:
        if has_ended(resource) or holder(self.folder):
            return ""
        return f"no command carries the run out: {self.go_on()} goes on where it was"

    def command(self, verb: str) -> str:
        return f"{self.prog} {verb} {shlex.quote(_shown(self.folder))}"

    def kubectl(self, verb: str) -> str:
        return ""

    def go_on(self) -> str:
        return f"{self.prog} run FILE --workspace {shlex.quote(_shown(self.folder))}"

    async def is_running(self, wanted: Wanted) -> bool:
        record = records_of(await self.resource()).get(wanted.step)
        newest = record.newest[-1] if record and record.newest else None
        running = newest is not None and (newest.number, newest.outcome) == (wanted.attempt, Outcome.RUNNING)
        return running and holder(self.folder) is not None

    def _stamp_now(self) -> tuple[int, int] | None:
        try:
            found = self.file.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino


class FileLog(Log):
    def __init__(self, path: Path, source: FolderSource, wanted: Wanted) -> None:
        self.title = str(path)
        self._path = path
        self._source = source
        self._wanted = wanted

    async def lines(self, *, follow: bool, tail: int | None = None) -> AsyncIterator[bytes]:
        with self._path.open("rb") as stream:
            if tail is not None:
                for line in deque(stream, maxlen=tail):
                    yield line.removesuffix(b"\n")
            rest = b""
            while True:
                running = follow and await self._source.is_running(self._wanted)  # asked first: then nothing is missed
                while chunk := stream.read(2**20):
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        yield line
                if not running:
                    break
                await asyncio.sleep(LOOK_SECONDS)
            if rest:
                yield rest


def _shown(folder: Path) -> str:
    """Relative to where the user is, if that is shorter."""
    try:
        relative = str(folder.relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
    return relative if "/" in relative else f"./{relative}"
