"""The columns of `kubectl get` and the phase: text for people, read by no program."""

from __future__ import annotations

from sppo_operator.conditions import Holds
from sppo_operator.decide import Action, Fail, Finish, Outcome, Stage, Step
from sppo_operator.facts import Records, in_order, win_rate
from sppo_operator.spec import Run

SHOWN_CHARACTERS = 4096
"""Of one text that a model wrote, in a report or a terminal."""
CUT_NOTE_CHARACTERS = 64
"""More than the note of a cut has: what was cut once is not cut again."""
VERBS = {
    Stage.PREPARE: "Preparing",
    Stage.GENERATE: "Generating",
    Stage.SCORE: "Scoring",
    Stage.TRAIN: "Training",
    Stage.EVALUATE: "Evaluating",
}


def phase_of(records: Records, actions: tuple[Action, ...], holds: Holds) -> str:
    match actions[-1]:
        case Finish():
            return "Succeeded"
        case Fail():
            return "Failed"
    if holds.stopped:
        return "Stopped"
    if holds.suspended:
        return "Suspended"
    working = [step for step in running_steps(records) if step not in holds.queued]
    if working:
        return VERBS[working[0].stage]
    return "Queued" if holds.queued else "Waiting"


def summary_of(run: Run, records: Records) -> dict[str, str]:
    running = running_steps(records)
    iteration = max((step.iteration for step in records), default=0)
    summary = {"iteration": f"{iteration}/{run.iterations}"}
    if running:
        summary["stage"] = ", ".join(map(str, running))
    progress = records[running[0]].progress if running else None
    if progress and progress["total"]:
        summary["progress"] = f"{100 * progress['done'] // progress['total']}%"
    if progress and progress.get("secondsLeft") is not None:
        summary["timeLeft"] = duration(progress["secondsLeft"])
    measured = [rate for number in range(iteration + 1) if (rate := win_rate(records, number))]
    if measured:
        summary["winRate"] = str(measured[-1])
    return summary


def running_steps(records: Records) -> list[Step]:
    """What runs now, the stage that the next iteration waits for first."""
    running = [step for step in in_order(records) if records[step].attempts.last is Outcome.RUNNING]
    return sorted(running, key=lambda step: step.stage is Stage.EVALUATE)


def duration(seconds: float) -> str:
    """Such as 45s, 12m, 3h20m, 4d."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{round(seconds)}s"
    if minutes < 90:
        return f"{minutes}m"
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes < 72 * 60 else f"{minutes // (24 * 60)}d"


def exact_duration(seconds: float) -> str:
    """Such as 45s, 1m42s, 3h20m05s: what stands in a table adds up."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest}s"
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m{rest:02d}s"


def shortened(text: str) -> str:
    """The text up to what a person reads of it, and how much more there is."""
    if len(text) <= SHOWN_CHARACTERS + CUT_NOTE_CHARACTERS:
        return text
    return f"{text[:SHOWN_CHARACTERS]} … {len(text) - SHOWN_CHARACTERS} more characters"


def figure(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if value % 1 == 0 and 1 <= abs(value) < 1e15 else f"{value:.3g}"
