"""The executor of `sppo run`: the operator's decisions carried out with processes on this machine.

Observe, decide, act, report, twenty times a second, in one thread. Everything worth keeping is in DIR/run.yaml or in
the stages' manifests, so the command may die at any moment and be started again.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from sppo_operator.commands.machine import why_one_stage
from sppo_operator.commands.process import StageProcess, stop
from sppo_operator.commands.view import View
from sppo_operator.conditions import Holds
from sppo_operator.decide import Action, Fail, Finish, Outcome, Plan, Stage, Start, Step, decide
from sppo_operator.errors import DamagedError, UserError
from sppo_operator.facts import Record, timestamp
from sppo_operator.policy import USER_FAULT
from sppo_operator.render import stage_config
from sppo_operator.report.page import write_report
from sppo_operator.result import End
from sppo_operator.results import Results, WholeParts
from sppo_operator.spec import Run
from sppo_operator.status import CAUSES, Facts, records_of, status_of
from sppo_operator.store import REPORT_FILE, RunFile, locked
from sppo_operator.validation import admit

TICK_SECONDS = 0.05
PROGRESS_SECONDS = 1.0
GRACE_SECONDS = 10.0
BACKOFF_SECONDS = 1.0
"""Nothing on this machine recovers by waiting longer, and a person is watching."""


def run_locally(manifest: dict[str, Any], folder: Path, view: View) -> int:
    """Carry out the manifest in `folder`, from wherever an earlier command left it; returns the exit status.

    Raises UserError if the manifest is refused, or the folder is in use, damaged or another run's.
    """
    with locked(folder):
        file = RunFile(folder)
        old = file.read()
        resource = _stored(admit(manifest, old), old, file.path)
        run = LocalRun(resource, folder, file, view)
        with view.shown():
            stopped_by = run.execute()
        return 128 + stopped_by if stopped_by else run.conclude()


def _stored(resource: dict[str, Any], old: Mapping[str, Any] | None, path: Path) -> dict[str, Any]:
    """The resource with the metadata that the API server would keep."""
    metadata = resource["metadata"]
    name = f"{metadata['namespace']}/{metadata['name']}"
    if resource["spec"]["suspend"]:
        raise UserError(f"spec.suspend of {name} is true: set it to false to run it here")
    before: dict[str, Any] = old["metadata"] if old else {"creationTimestamp": _now(), "generation": 0}
    if old and (before["namespace"], before["name"]) != (metadata["namespace"], metadata["name"]):
        raise UserError(
            f"{path} is the run {before['namespace']}/{before['name']}, not {name}: use another --workspace, or "
            "restore metadata.name and metadata.namespace"
        )
    changed = old is None or old["spec"] != resource["spec"]
    kept = {"generation": before["generation"] + changed, "creationTimestamp": before["creationTimestamp"]}
    return resource | {"metadata": metadata | kept}


class LocalRun:
    """One run in one folder, from wherever it was; `resource` is as `validation.admit` returned it."""

    def __init__(self, resource: Mapping[str, Any], folder: Path, file: RunFile, view: View) -> None:
        self.run = Run.of(resource)
        self.plan = Plan(
            iterations=self.run.iterations,
            retries=self.run.retries,
            parallel=self.run.parallel_evaluation and not why_one_stage(),
            backoff_seconds=BACKOFF_SECONDS,
        )
        self.results = Results.of(self.run, folder)
        self.report = folder / REPORT_FILE
        recorded = records_of(resource)
        self.records = {step: _picked_up(record, self.results.finished(step)) for step, record in recorded.items()}
        self._failures: Counter[str] = Counter(resource.get("status", {}).get("failures", {}))
        self._failures["disruption"] += sum(tried.attempts.last is Outcome.RUNNING for tried in recorded.values())
        self._resource = dict(resource)
        self._workspace = folder
        self._file = file
        self._view = view
        self._processes: dict[Step, StageProcess] = {}
        self._started: dict[Step, float] = {}
        self._ended: dict[Step, float] = {}
        self._written = 0.0
        self._warned: set[str] = set()

    def execute(self) -> int:
        """Run until nothing is left to do; returns the number of the signal that came before, or 0."""
        self.results.logs.mkdir(parents=True, exist_ok=True)
        self._explain()
        with _signals() as received:
            try:
                while not received:
                    changed = self._observe()
                    actions = self._decide()
                    changed |= self._act(actions)
                    self._write(actions, changed)
                    self._view.show(self._resource, self.records)
                    if isinstance(actions[-1], Finish | Fail):
                        return 0
                    time.sleep(TICK_SECONDS)
                self._view.say(f"{signal.Signals(received[0]).name}: stopping the stages")
            finally:
                self._stop()
            self._write(self._decide(), changed=True, stopped=True)
            return received[0]

    def conclude(self) -> int:
        """Say how the run ended; returns the exit status of the command."""
        degraded = next(item for item in self._resource["status"]["conditions"] if item["type"] == "Degraded")
        if degraded["status"] == "True":
            self._view.warn(f"warning: {degraded['message']}")
        match self._decide()[-1]:
            case Fail(step, _, message):
                self._view.warn(f"error: {message}")
                code = self.records[step].newest[-1].exit_code or 1
                return code if code in USER_FAULT else 1
        self._view.finish(self.records, self.results, [f"Report: {self.report}"])
        return 0

    def _explain(self) -> None:
        """Say where this machine departs from what the manifest asks for."""
        if fields := self.run.cluster_fields():
            self._view.say(f"Without effect on one machine: {', '.join(fields)}")
        if self.run.parallel_evaluation and (reason := why_one_stage()):
            self._view.say(f"One stage at a time: {reason}")

    def _observe(self) -> bool:
        """Read what the processes did, and stop what is overdue; True if an attempt ended."""
        ended = False
        for step, process in list(self._processes.items()):
            progress, end = process.progress(), process.poll() or self._overdue(step, process)
            if progress is not None:
                self.records[step] = replace(self.records[step], progress=progress)
            if end is not None:
                self._record_end(step, end)
                ended = True
        return ended

    def _overdue(self, step: Step, process: StageProcess) -> End | None:
        limit = self.run.deadline_seconds(step.stage)
        if time.monotonic() < self._started[step] + limit:
            return None
        end = stop({step: process}, GRACE_SECONDS)[step]
        if end.outcome is not Outcome.SUSPENDED:  # it came to its own end just in time
            return end
        message = f"stopped after spec.stages.{step.stage.value}.deadlineSeconds {limit:.0f}: raise it or remove it"
        return replace(end, outcome=Outcome.FAILED, message=message)

    def _decide(self) -> tuple[Action, ...]:
        return decide(self.plan, {step: record.attempts for step, record in self.records.items()})

    def _act(self, actions: tuple[Action, ...]) -> bool:
        """Carry out what was decided; True if an attempt was started or stopped."""
        changed = False
        for action in actions:
            if isinstance(action, Start) and self._is_due(action):
                self._start(action)
                changed = True
        if isinstance(actions[-1], Fail) and self._processes:
            self._stop()
            changed = True
        return changed

    def _is_due(self, action: Start) -> bool:
        # An attempt that ended under an earlier command has no time here: it waited long enough.
        ended = self._ended.get(action.step)
        return ended is None or time.monotonic() >= ended + action.delay_seconds

    def _start(self, action: Start) -> None:
        job = self.run.job_name(action.step, action.attempt)
        config = stage_config(self.run, action.step, str(self._workspace), workers=1)
        self._processes[action.step] = StageProcess(action.step.stage, config, self.results.logs / f"{job}.log")
        self._started[action.step] = time.monotonic()
        self.records[action.step] = self.records.get(action.step, Record()).started(_now())
        self._view.started(action.step, action.attempt)

    def _record_end(self, step: Step, end: End) -> None:
        del self._processes[step]
        self._ended[step] = time.monotonic()
        record = self.records[step].ended(end.outcome, _now(), message=end.message, exit_code=end.exit_code)
        if end.outcome is Outcome.SUCCEEDED:
            record = record.with_result(end.metrics, end.content_digest)
        elif end.outcome in CAUSES:
            self._failures[CAUSES[end.outcome]] += 1
        self.records[step] = record
        self._view.ended(step, record)

    def _stop(self) -> None:
        for step, end in stop(self._processes, GRACE_SECONDS).items():
            self._record_end(step, end)

    def _write(self, actions: tuple[Action, ...], changed: bool, stopped: bool = False) -> None:
        """Bring run.yaml and the report up to date: at once after a change, otherwise at most once per second."""
        if not changed and time.monotonic() < self._written + PROGRESS_SECONDS:
            return
        trained = [at.iteration for at, record in self.records.items() if at.stage is Stage.TRAIN and record.metrics]
        facts = Facts(
            records=self.records,
            failures=self._failures,
            policies=self._policies(trained),
            report=str(self.report) if trained else "",
            holds=Holds(stopped=stopped),
        )
        self._resource["status"] = status_of(self.run, facts, actions, self._resource.get("status", {}), _now())
        if self._file.write(self._resource) and changed:
            self._write_report()
        self._written = time.monotonic()

    def _policies(self, trained: list[int]) -> dict[int, str]:
        try:
            return {number: str(policy) for number in trained if (policy := self.results.policy(number))}
        except DamagedError:  # the next stage, which reads the policy, says so
            return {}

    def _write_report(self) -> None:
        """Write the report if it can be written: people can wait for it, and the run must not."""
        try:
            write_report(self.report, self._resource, WholeParts(self.results, self._warn_once))
        except OSError as error:
            self._warn_once(f"warning: {self.report} is out of date: {error}")

    def _warn_once(self, sentence: str) -> None:
        if sentence not in self._warned:
            self._warned.add(sentence)
            self._view.warn(sentence)


def _picked_up(record: Record, finished: bool) -> Record:
    """A step as a new command finds it: what ran is dead, and starting the command again renews the retries.

    A step whose artifact was removed is done again: that is the remedy for a damaged one.
    """
    if record.attempts.last is Outcome.RUNNING:
        record = record.ended(Outcome.VANISHED, _now(), message="the command was killed while it ran")
    elif record.attempts.last is Outcome.SUCCEEDED and not finished:
        record = replace(record, attempts=record.attempts.ended(Outcome.VANISHED))
    return replace(record, attempts=record.attempts.renewed())


def _now() -> str:
    return timestamp(datetime.now(UTC))


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that ask the command to stop."""
    received: list[int] = []

    def handler(number: int, _: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield received
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
