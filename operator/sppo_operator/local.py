"""The executor of `sppo run`: the operator's decisions carried out with processes on this machine.

Observe, decide, act, report, ten times a second, in one thread. Everything worth keeping is in DIR/run.yaml or in the
stages' manifests, so the command may die at any moment and be started again.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from sppo_operator.decide import Action, Fail, Finish, Outcome, Plan, Start, Step, decide
from sppo_operator.facts import Record, timestamp
from sppo_operator.machine import can_run_two_stages
from sppo_operator.process import End, StageProcess
from sppo_operator.render import stage_config
from sppo_operator.report import write_report
from sppo_operator.spec import Run
from sppo_operator.status import records_of, status_of
from sppo_operator.store import RunFile
from sppo_operator.view import View

TICK_SECONDS = 0.1
PROGRESS_SECONDS = 1.0
GRACE_SECONDS = 10.0
BACKOFF_SECONDS = 1.0
"""Nothing on this machine recovers by waiting longer, and a person is watching."""


class LocalRun:
    """One run in one folder, from wherever it was."""

    def __init__(self, resource: Mapping[str, Any], folder: Path, file: RunFile, view: View) -> None:
        self.run = Run.of(resource)
        self.plan = Plan(
            iterations=self.run.iterations,
            retries=self.run.retries,
            parallel=self.run.parallel_evaluation and can_run_two_stages(),
            backoff_seconds=BACKOFF_SECONDS,
        )
        self.records = {step: _picked_up(record) for step, record in records_of(resource).items()}
        self.exit_codes: dict[Step, int] = {}
        self._resource = dict(resource)
        self._folder = folder
        self._logs = folder / self.run.namespace / self.run.name / "logs"
        self._file = file
        self._view = view
        self._processes: dict[Step, StageProcess] = {}
        self._ended: dict[Step, float] = {}
        self._written = 0.0

    def execute(self) -> int:
        """Run until nothing is left to do; returns the exit status of the command."""
        self._logs.mkdir(parents=True, exist_ok=True)
        with _signals() as received:
            while not received:
                changed = self._observe()
                actions = decide(self.plan, {step: record.attempts for step, record in self.records.items()})
                changed |= self._act(actions)
                self._report(actions, changed)
                if isinstance(actions[-1], Finish | Fail):
                    return self._exit_status(actions[-1])
                time.sleep(TICK_SECONDS)
            self._view.event(f"{signal.Signals(received[0]).name}: stopping the stages")
            self._stop()
            self._report(decide(self.plan, {step: record.attempts for step, record in self.records.items()}), True)
            return 128 + received[0]

    def _observe(self) -> bool:
        """Read what the processes did; True if an attempt ended."""
        ended = False
        for step, process in list(self._processes.items()):
            progress, end = process.progress(), process.poll()
            if progress is not None:
                self.records[step] = replace(self.records[step], progress=progress)
            if end is not None:
                self._record_end(step, end)
                ended = True
        return ended

    def _act(self, actions: tuple[Action, ...]) -> bool:
        """Carry out what was decided; True if an attempt started or was stopped."""
        changed = False
        for action in actions:
            if isinstance(action, Start) and self._is_due(action):
                self._start(action)
                changed = True
            elif isinstance(action, Fail) and self._processes:
                self._stop()
                changed = True
        return changed

    def _is_due(self, action: Start) -> bool:
        # An attempt that ended before this command started has no time here: it waited long enough.
        ended = self._ended.get(action.step)
        return ended is None or time.monotonic() >= ended + action.delay_seconds

    def _start(self, action: Start) -> None:
        job = self.run.job_name(action.step, action.attempt)
        # Recorded first: an attempt whose command died at once must not give its number to the next one.
        self.records[action.step] = self.records.get(action.step, Record()).with_start(job, _now())
        config = stage_config(self.run, action.step, str(self._folder), workers=1)
        self._processes[action.step] = StageProcess(action.step.stage, config, self._logs / f"{job}.log")
        self._view.started(action.step, action.attempt)

    def _record_end(self, step: Step, end: End) -> None:
        del self._processes[step]
        self._ended[step] = time.monotonic()
        record = self.records[step].with_end(end.outcome, _now(), message=end.message, exit_code=end.exit_code)
        if end.outcome is Outcome.SUCCEEDED:
            record = record.with_result(end.metrics, end.content_digest)
        self.records[step] = record
        self._view.ended(step, record)

    def _stop(self) -> None:
        for step, end in stop(self._processes, GRACE_SECONDS).items():
            self._record_end(step, end)
