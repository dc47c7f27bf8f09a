"""A run on a cluster, read with the user's own rights."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sppo_operator import resources
from sppo_operator.api import Api
from sppo_operator.commands.overview import Resource
from sppo_operator.commands.reader import fetch
from sppo_operator.commands.source import Log, NotStartedError, Object, Source, Wanted
from sppo_operator.errors import (
    ApiError,
    ForbiddenError,
    MissingError,
    NotFoundError,
    RefusedError,
    RightsError,
    ServerError,
)
from sppo_operator.jobs import CONTAINER
from sppo_operator.objects import has_ended, one_line, phase_of, stage_state
from sppo_operator.result import parsed
from sppo_operator.results import Material
from sppo_operator.spec import Run
from sppo_operator.status import records_of
from sppo_operator.target import ClusterOptions, ClusterTarget

QUOTED_CHARACTERS = 240
STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\S+) ")
"""What `timestamps` puts before a line: always as long, so that texts compare as times do."""


class Asking:
    """Has a client of the API server; an asynchronous context manager."""

    def __init__(self, options: ClusterOptions) -> None:
        self.api = Api(options.login)

    async def __aenter__(self) -> Self:
        await self.api.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.api.__aexit__(kind, error, trace)


class ClusterSource(Asking, Source):
    def __init__(self, target: ClusterTarget, prog: str) -> None:
        super().__init__(target.options)
        self.name = target.name
        self.prog = prog
        self.options = target.options
        self.namespace = self.api.namespace

    async def resource(self) -> Resource:
        with explained(
            f'run "{self.name}" in namespace "{self.namespace}"', f"{self.prog} watch{self.options.flags()}"
        ):
            return await self.api.get(resources.run(self.namespace, self.name))

    async def log(self, wanted: Wanted) -> Log:
        resource = await self.resource()
        job = Run.of(resource).job_name(wanted.step, wanted.attempt)
        pods = [pod for pod in await self._pods(job) if wanted.worker in (None, worker_of(pod))]
        if not pods:
            raise MissingError(_gone(resource, job, wanted))
        chosen, *others = explaining(pods, _message(resource, wanted))
        return PodLog(self.api, chosen, tuple(map(_title, others)))

    async def log_after(self, wanted: Wanted, log: Log) -> Log | None:
        """That of the pod in whose place this one's came, or what this one wrote after its log was cut off."""
        assert isinstance(log, PodLog), "the logs of a cluster are pods'"
        before = log.pod
        pods = await self._pods(before["metadata"]["labels"][resources.JOB_LABEL])
        same = [pod for pod in pods if worker_of(pod) == worker_of(before) and _created(pod) >= _created(before)]
        newest = max(same, key=_created, default=None)
        if newest is None:
            return None
        if newest["metadata"]["uid"] != before["metadata"]["uid"]:
            return PodLog(self.api, newest, ())
        log.pod = newest
        return None if has_ended(before) else log

    async def _pods(self, job: str) -> list[Object]:
        with explained("pods"):
            return await self.api.list(resources.pods(self.namespace), f"{resources.JOB_LABEL}={job}")

    async def events(self) -> list[Object]:
        uid = (await self.resource())["metadata"]["uid"]
        with explained("Events"):
            found = await self.api.list(resources.events(self.namespace), fields=f"involvedObject.uid={uid}")
        return sorted(found, key=event_time)

    async def material(self, resource: Resource, say: Callable[[str], object]) -> Material:
        return await fetch(self.api, resource, say)

    def report_path(self, resource: Resource) -> Path:
        return Path(f"{self.name}-report.html")

    def stopped(self, resource: Resource) -> str:
        return ""

    def command(self, verb: str) -> str:
        return f"{self.prog} {verb} {self.name}{self.options.flags()}"

    def kubectl(self, verb: str) -> str:
        return f"kubectl {verb} sppo {self.name}{self.options.flags()}"

    def go_on(self) -> str:
        return f'{self.kubectl("annotate --overwrite")} sppo.dev/retry="$(date +%s)"'


class PodLog(Log):
    def __init__(self, api: Api, pod: Object, others: tuple[str, ...]) -> None:
        self.title = _title(pod)
        self.others = others
        self.pod = pod
        """As it was before its log was read."""
        self._api = api
        self._newest = b""
        """When the newest line was written."""

    async def lines(self, *, follow: bool, tail: int | None = None) -> AsyncIterator[bytes]:
        """Asked again, those that came since."""
        metadata = self.pod["metadata"]
        path = resources.pod_log(metadata["namespace"], metadata["name"])
        query = {"container": CONTAINER} | ({"follow": "true", "timestamps": "true"} if follow else {})
        if self._newest:
            query["sinceTime"] = self._newest.decode()
        elif tail is not None:
            query["tailLines"] = str(tail)
        with explained(f"the log of {self.title}"):
            try:
                async for line in self._api.lines(path, **query):
                    stamp = STAMP.match(line) if follow else None
                    if stamp is None:
                        yield line
                    elif stamp[1] > self._newest:  # sinceTime goes by whole seconds
                        self._newest = stamp[1]
                        yield line[stamp.end() :]
            except RefusedError as error:
                why = one_line(error.message, QUOTED_CHARACTERS)
                raise NotStartedError(f"{self.title} has no log yet ({why})", "try again, or with --follow") from error


class Runs(Asking):
    """The runs of a namespace, or of all."""

    def __init__(self, options: ClusterOptions, *, everywhere: bool) -> None:
        super().__init__(options)
        self._namespace = "" if everywhere else self.api.namespace

    async def list(self) -> list[Object]:
        """By namespace and name. Raises UserError."""
        with explained("runs"):
            found = await self.api.list(resources.runs(self._namespace), trim=_without_details)
        return sorted(found, key=lambda run: (run["metadata"]["namespace"], run["metadata"]["name"]))


@contextmanager
def explained(what: str, others: str = "") -> Iterator[None]:
    """Errors of the API server as errors of the user, with remedies; `others` is a command that lists what is there."""
    try:
        yield
    except NotFoundError as error:
        if "not found" in error.message:
            hint = f": {others} lists those that are there" if others else ""
            raise MissingError(f"there is no {what}{hint}") from error
        remedy = "install the operator, or choose another cluster with --context"
        raise ServerError("the cluster does not know SPPORuns", remedy) from error
    except ForbiddenError as error:
        remedy = "ask an administrator for that right, or choose another --context or -n"
        raise RightsError(f"{one_line(error.message, QUOTED_CHARACTERS)}: {remedy}") from error
    except ApiError as error:
        if error.status == 401:
            raise RightsError("the API server does not accept the credentials: log in to the cluster again") from error
        if error.reason == "Unauthorized":  # no credentials to ask with; it names the remedy
            raise RightsError(error.message) from error
        why = one_line(error.message, QUOTED_CHARACTERS)
        if error.status:
            raise ServerError(f"the API server answers {error.status} ({why})", "try again later") from error
        raise ServerError(why, "check the cluster, or choose another --context") from error


def explaining(pods: list[Object], message: str) -> list[Object]:
    """The pods of an attempt, first the one that explains its end: of its words, else the first that failed.

    If none failed, that of the first worker, of several the newest.
    """

    def key(pod: Object) -> tuple[object, ...]:
        ended = stage_state(pod, "terminated") or {}
        says = str(parsed(str(ended.get("message", "")).encode()).get("error", ""))
        spoke = bool(message and says) and (says[:80] in message or message in says)
        failed = phase_of(pod) == "Failed"
        return (not spoke, not failed, str(ended.get("finishedAt", "")) if failed else "", worker_of(pod))

    newest_first = sorted(pods, key=_created, reverse=True)
    return sorted(newest_first, key=key)


def worker_of(pod: Mapping[str, Any]) -> int:
    return int(pod["metadata"].get("annotations", {}).get(resources.INDEX_ANNOTATION, 0))


def _created(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["creationTimestamp"])


def event_time(event: Mapping[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])


def _title(pod: Object) -> str:
    return f"pod {pod['metadata']['name']} (worker {worker_of(pod)}, {phase_of(pod)})"


def _gone(resource: Resource, job: str, wanted: Wanted) -> str:
    keep = resource["spec"].get("retention", {}).get("finishedJobsSeconds")
    worker = "" if wanted.worker is None else f" of worker {wanted.worker}"
    message = _message(resource, wanted)
    kept = f"; the status kept of it: {message}" if message else ""
    return (
        f"no pod{worker} of Job {job} is left: finished Jobs are removed after {keep} s "
        f"(spec.retention.finishedJobsSeconds){kept}"
    )


def _message(resource: Resource, wanted: Wanted) -> str:
    """Why the attempt ended, as far as the status still has it."""
    record = records_of(resource).get(wanted.step)
    attempts = record.newest if record else ()
    return next((attempt.message for attempt in attempts if attempt.number == wanted.attempt), "")


def _without_details(run: Object) -> Object:
    status = {key: value for key, value in run.get("status", {}).items() if key != "iterations"}
    return {"metadata": run["metadata"], "status": status}
