"""The status of a run from what was recorded, and back: pure functions, the shape of the CRD.

The status holds facts that cannot be observed any more once a process or a Job is gone, and what people want to read.
`phase` is derived last and read by nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sppo_operator.conditions import conditions, merged
from sppo_operator.decide import Action, Attempts, Fail, Finish, Outcome, Stage, Step
from sppo_operator.facts import Record, Records, best_iteration, decimal, win_rate
from sppo_operator.render import CONTRACT_VERSION
from sppo_operator.spec import Run

STAGES = list(Stage)


def status_of(
    run: Run, records: Records, actions: Iterable[Action], old: Mapping[str, Any], now: str, *, stopped: bool = False
) -> dict[str, Any]:
    """The whole status; `old` gives the conditions their times."""
    actions = tuple(actions)
    numbers = sorted({step.iteration for step in records})
    status: dict[str, Any] = {
        "observedGeneration": run.generation,
        "contractVersion": CONTRACT_VERSION,
        "digest": run.digest(),
        "conditions": merged(
            old.get("conditions", ()), conditions(records, actions, stopped=stopped), run.generation, now
        ),
        "iterations": [_iteration(run, number, records) for number in numbers],
    }
    best = best_iteration(records)
    if best is not None:
        status["bestIteration"] = best
    return status | {"phase": _phase(records, actions, stopped)}


def records_of(resource: Mapping[str, Any]) -> dict[Step, Record]:
    """What the status of an earlier command or operator says."""
    iterations = resource.get("status", {}).get("iterations", ())
    return {
        Step(iteration["number"], Stage(stage["name"])): _record(stage)
        for iteration in iterations
        for stage in iteration["stages"]
    }
