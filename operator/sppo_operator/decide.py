"""What to do next for a run: a pure function of the plan and of what became of every attempt.

Everything that affects the order of the stages lives here: no clock, no I/O, no status conditions. The executor
(local processes, or Kubernetes Jobs) observes, calls `decide`, and carries out what it says.

    prepare ──┬─> evaluate 0 ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─> evaluate 1 ─ ─ ─> ...
              └─> generate 1 ──> score 1 ──> train 1 ──┴─> generate 2 ──> ...

An arrow is an input. Evaluations come in order (dashed) but go on without one that failed for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

LONGEST_BACKOFF_SECONDS = 600.0


class Stage(StrEnum):
    PREPARE = "prepare"
    GENERATE = "generate"
    SCORE = "score"
    TRAIN = "train"
    EVALUATE = "evaluate"


@dataclass(frozen=True)
class Step:
    """One stage of one iteration; iteration 0 holds `prepare` and the evaluation of the base."""

    iteration: int
    stage: Stage

    def __str__(self) -> str:
        return self.stage.value if self.stage is Stage.PREPARE else f"{self.stage.value} {self.iteration}"


class Outcome(StrEnum):
    """What became of an attempt, by the names that the status shows."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    USER_FAULT = "UserFault"
    """Exit code 64..78: the same again would fail again, so nobody retries it."""
    FAILED = "Application"
    """Any other failure: retried, and charged to `retries.limit`."""

    # Retried and not charged:
    DISRUPTED = "Disruption"
    """SIGTERM, a lost or drained node, a preempted pod."""
    EVICTED = "Eviction"
    """The queue took the attempt's place."""
    SUSPENDED = "Suspended"
    """The user stopped the run."""
    VANISHED = "Vanished"
    """Gone without a trace: nobody saw its end."""


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """A step's history, folded: interruptions are unbounded, so their list would not fit into a status."""

    made: int = 0
    """Attempts started so far; they are numbered from 1."""
    charged: int = 0
    """Failures since the budget was last renewed."""
    last: Outcome | None = None
    """None before the first attempt, and after a failure that the user has forgiven."""
    message: str = ""
    """Why the last attempt failed, one sentence."""

    def started(self) -> Attempts:
        return replace(self, made=self.made + 1, last=Outcome.RUNNING, message="")

    def ended(self, outcome: Outcome, message: str = "", failures: int = 1) -> Attempts:
        """The history with this end; `failures` is what a failed attempt is charged."""
        charged = self.charged + (failures if outcome is Outcome.FAILED else 0)
        return replace(self, charged=charged, last=outcome, message=message)

    def renewed(self) -> Attempts:
        """The same history after the user asked for a retry: no failure of any kind counts any more."""
        if self.last in (Outcome.FAILED, Outcome.USER_FAULT):
            return Attempts(made=self.made)
        return replace(self, charged=0)


History = Mapping[Step, Attempts]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The facts of the spec that the order of the stages depends on."""

    iterations: int
    retries: int
    """Failures per step that are made good by another attempt."""
    parallel: bool
    """Whether an evaluation runs beside the next iteration; otherwise one stage at a time."""
    backoff_seconds: float = 10.0
    """The delay after a step's first failure; it doubles with each further one."""


@dataclass(frozen=True)
class Start:
    """Start this attempt, `delay_seconds` after the end of the one before it."""

    step: Step
    attempt: int
    delay_seconds: float = 0.0


@dataclass(frozen=True)
class Wait:
    """An attempt is running."""

    step: Step


@dataclass(frozen=True)
class GiveUp:
    """This evaluation failed for good, and the run goes on without it."""

    step: Step
    message: str


@dataclass(frozen=True)
class Fail:
    """The run has failed; what still runs is to be stopped."""

    step: Step
    reason: str
    message: str


@dataclass(frozen=True)
class Finish:
    """Nothing is left to do."""


Action = Start | Wait | GiveUp | Fail | Finish


def schedule(iterations: int) -> Iterator[Step]:
    """All steps in the order in which one worker would do them."""
    yield Step(0, Stage.PREPARE)
    yield Step(0, Stage.EVALUATE)
    for iteration in range(1, iterations + 1):
        for stage in (Stage.GENERATE, Stage.SCORE, Stage.TRAIN, Stage.EVALUATE):
            yield Step(iteration, stage)


def inputs(step: Step) -> tuple[Step, ...]:
    """The steps whose artifacts this one reads."""
    match step:
        case Step(_, Stage.PREPARE):
            return ()
        case Step(0, Stage.EVALUATE) | Step(1, Stage.GENERATE):
            return (Step(0, Stage.PREPARE),)
        case Step(iteration, Stage.GENERATE):
            return (Step(iteration - 1, Stage.TRAIN),)
        case Step(iteration, Stage.SCORE):
            return (Step(iteration, Stage.GENERATE),)
        case Step(iteration, Stage.TRAIN):
            return (Step(iteration, Stage.SCORE),)
        case Step(iteration, _):
            return (Step(iteration, Stage.TRAIN),)


def decide(plan: Plan, history: History) -> tuple[Action, ...]:
    """Return what moves the run forward now.

    A failure for good is the only action when there is one. `GiveUp` is repeated in every decision for as long as it
    holds; `Finish` comes when nothing runs and nothing is left to start.
    """
    finished: set[Step] = set()
    given_up: dict[Step, Action] = {}
    running: list[Action] = []
    ready: list[Action] = []
    for step in schedule(plan.iterations):
        match history.get(step, Attempts()):
            case Attempts(last=Outcome.SUCCEEDED):
                finished.add(step)
            case Attempts(last=Outcome.RUNNING):
                running.append(Wait(step))
            case tried if _for_good(plan, tried) and step.stage is Stage.EVALUATE:
                given_up[step] = GiveUp(step, tried.message)
            case tried if _for_good(plan, tried):
                return (_failure(step, tried),)
            case tried if finished.issuperset(inputs(step)) and finished | given_up.keys() >= _before(step):
                ready.append(Start(step, tried.made + 1, _delay_seconds(plan, tried)))
    if not plan.parallel:
        ready = [] if running else ready[:1]
    ending = () if running or ready else (Finish(),)
    return (*given_up.values(), *running, *ready, *ending)


def _before(step: Step) -> set[Step]:
    """What comes first though this step reads nothing of it: two evaluations at once would sample the base twice."""
    if step.stage is Stage.EVALUATE and step.iteration > 0:
        return {Step(step.iteration - 1, Stage.EVALUATE)}
    return set()


def _for_good(plan: Plan, tried: Attempts) -> bool:
    return tried.last is Outcome.USER_FAULT or (tried.last is Outcome.FAILED and tried.charged > plan.retries)


def _failure(step: Step, tried: Attempts) -> Fail:
    if tried.last is Outcome.USER_FAULT:
        return Fail(step, "UserFault", f"{step}: {tried.message}")
    times = f"{tried.charged} times" if tried.charged > 1 else "once"
    message = f"{step} failed {times}, and no retry is left: {tried.message}; mend the cause, then retry the run"
    return Fail(step, "RetriesExhausted", message)


def _delay_seconds(plan: Plan, tried: Attempts) -> float:
    if tried.last in (None, Outcome.SUSPENDED, Outcome.EVICTED):
        return 0.0  # the user, or the queue, has decided when
    doublings = max(tried.charged - 1, 0) if tried.last is Outcome.FAILED else 0
    return min(plan.backoff_seconds * 2.0 ** min(doublings, 60), LONGEST_BACKOFF_SECONDS)
