"""A run that a report has much to tell about: three iterations, retries, a second oracle, and answers of a hostile model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from sppo_operator.decide import Action, Finish, Outcome, Stage, Step
from sppo_operator.facts import Record
from sppo_operator.results import Curves, Made, Sample
from sppo_operator.spec import Run
from sppo_operator.status import Facts, status_of
from sppo_operator.validation import admit

NOW = "2026-01-31T13:00:00Z"
IMAGE = "registry.example/sppo-trainer:0.1.0@sha256:" + "a" * 64
RESOURCE = admit(
    yaml.safe_load("""
apiVersion: sppo.dev/v1alpha1
kind: SPPORun
metadata: {name: demo, namespace: lab}
spec:
  iterations: 3
  model: {source: models/base, systemPrompt: "</pre><script>document.title='run'</script>"}
  prompts: {source: prompts.jsonl, perIteration: 10, heldOut: 40}
  preference: {kind: Verifier, verifier: {rules: [{kind: Finished}]}}
  evaluation: {preference: {kind: Verifier, verifier: {rules: [{kind: Regex, pattern: "[.]$"}]}}}
  objective: {beta: '0.05'}
  training: {learningRate: '0.000005'}
  workspace: {claimName: models}
""")
)
HOSTILE = {
    "script": "<script>document.title='run'</script>",
    "image": "<img src=x onerror=\"document.title='run'\">",
    "SVG": "<svg onload=\"document.title='run'\"><a href=\"javascript:document.title='run'\">x</a></svg>",
    "end of the section": "</blockquote></article></section></main></body></html><style>*{display:none}</style>",
    "attribute": '" onmouseover="document.title=\'run\'" x="',
    "network": "<link rel=stylesheet href=//example.invalid/x.css><iframe src=//example.invalid></iframe>",
    "control characters": "\x00\x1b[2J\x07\x9b31m\ud800 bell",
    "right to left": "\u202eمرحبا بالعالم, override \u2066isolate " + "\u202e" * 40,
    "very long word": "Donaudampfschifffahrtsgesellschaftskapitän" * 60,
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈" * 30 + "é" * 50 + "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢",
    "many lines": "line\n" * 400,
    "nothing": " \n",
}


@dataclass(frozen=True, kw_only=True)
class Told:
    """Implements results.Material with what a test says."""

    missing: Sequence[str] = ()
    by_training: Mapping[int, Curves] = field(default_factory=dict)
    by_evaluation: Mapping[int, Sequence[Sample]] = field(default_factory=dict)
    by_step: Mapping[Step, Made] = field(default_factory=dict)

    def curves(self, iteration: int) -> Curves:
        return self.by_training.get(iteration, {})

    def samples(self, iteration: int) -> Sequence[Sample]:
        return self.by_evaluation.get(iteration, [])

    def made(self, step: Step) -> Made | None:
        return self.by_step.get(step)


def at(minute: int) -> str:
    return f"2026-01-31T12:{minute:02}:00Z"


def done(start: int, end: int, **metrics: Any) -> Record:
    return Record().started(at(start), IMAGE).ended(Outcome.SUCCEEDED, at(end)).with_result(metrics, "d" * 64)


def rates(base: float, *, second: float | None = None, previous: float | None = None) -> dict[str, float]:
    """The win rates of an evaluation, with intervals of 0.04 to both sides."""
    found = {"winRateBase": base, "secondWinRateBase": second, "winRatePrevious": previous}
    return {
        f"{name}{end}": value + shift
        for name, value in found.items()
        if value is not None
        for end, shift in (("", 0), ("Low", -0.04), ("High", 0.04))
    }


def evaluated(start: int, base: float, **more: Any) -> Record:
    others = {"passRate": base / 2, "meanTokens": 12.0, "cutShare": 0.02, "distinctShare": 0.98, "klPerResponse": 1.5}
    return done(start, start + 4, **others | more | rates(base, second=more.pop("second", None)))


def resource(records: Mapping[Step, Record], *actions: Action, **status: Any) -> dict[str, Any]:
    """The run with these records in its status."""
    facts = Facts(records=records, image=IMAGE, failures=status.pop("failures", {}))
    shown = status_of(Run.of(RESOURCE), facts, actions or (Finish(),), {"startTime": at(0)}, at(50))
    return RESOURCE | {"status": shown | status}


def retried(start: int, end: int) -> Record:
    """A step whose first attempt crashed, whose second was lost with its node, and whose third succeeded."""
    record = Record().started(at(start), IMAGE)
    record = record.ended(Outcome.FAILED, at(start + 1), message=f"MemoryError: {HOSTILE['script']}", exit_code=137)
    record = record.started(at(start + 2), IMAGE).ended(Outcome.DISRUPTED, at(start + 3), message="its node is gone")
    record = record.started(at(start + 3), IMAGE).ended(Outcome.SUCCEEDED, at(end))
    return record.with_result({"lossOverEta2": 0.02, "logRatioBest": 2.0, "logRatioWorst": -3.0, "steps": 30}, "e" * 64)


def full_records() -> dict[Step, Record]:
    records = {Step(0, Stage.PREPARE): done(0, 2, heldOut=40, modelRevision="c0ffee")}
    records[Step(0, Stage.EVALUATE)] = evaluated(2, 0.5, second=0.5)
    for number, (base, second) in enumerate(((0.62, 0.58), (0.74, 0.56), (0.71, 0.51)), 1):
        start = 2 + 14 * (number - 1)
        records[Step(number, Stage.GENERATE)] = done(start, start + 4, meanTokens=13.0, cutShare=0.05, distinctShare=1)
        records[Step(number, Stage.SCORE)] = done(start + 4, start + 5, passRate=0.3)
        records[Step(number, Stage.TRAIN)] = (
            retried(start + 5, start + 13)
            if number == 2
            else done(start + 5, start + 13, lossOverEta2=0.03, logRatioBest=1.0, logRatioWorst=-1.0, steps=30)
        )
        records[Step(number, Stage.EVALUATE)] = evaluated(start + 13, base, second=second)
    return records


def full_curves(steps: int = 30) -> dict[str, list[float | None]]:
    wave = [math.sin(step / 3) for step in range(steps)]
    return {
        "lossOverEta2": [0.1 / (1 + step) + 0.01 for step in range(steps)],
        "logRatioBest": [step / 20 + value / 4 for step, value in enumerate(wave)],
        "logRatioWorst": [None if step == 5 else -step / 10 + value / 4 for step, value in enumerate(wave)],
        "gradNorm": [3 + value for value in wave],
        "learningRate": [5e-6 * (1 - step / steps) for step in range(steps)],
    }


def samples() -> list[dict[str, Any]]:
    """32 of 40 prompts, most of them harmless, among those that are shown all that is hostile."""
    hostile = iter(HOSTILE.values())
    ranks = [*range(1, 9), *range(13, 29), *range(33, 41)]
    rows = []
    for rank in ranks:
        is_shown = rank <= 4 or rank > 36 or 19 <= rank <= 22
        text = next(hostile, "An ordinary answer.") if is_shown else "An ordinary answer."
        rows.append(
            {
                "prompt": text if rank % 2 else "What is a kettle for?",
                "before": text,
                "after": text,
                "scoreBefore": 0.25,
                "scoreAfter": 0.75,
                "winRate": round(1 - (rank - 1) / 39, 3),
                "rank": rank,
            }
        )
    return rows


def full() -> tuple[dict[str, Any], Told]:
    """A run with everything, and its material."""
    records = full_records()
    packages = {"torch": "2.13.0", "transformers": "5.19.0"}
    notes = {"trainer": "0.1.0", "host": "node-1", "packages": packages, "accelerator": None, "seconds": 3.0}
    told = Told(
        by_training={number: full_curves() for number in (1, 2, 3)},
        by_evaluation={2: samples()},
        by_step={step: Made(content_digest="d" * 64, provenance=notes) for step in records},
        missing=["Of the curves of iteration 3, one step of 2 was read."],
    )
    failures = {"application": 1, "disruption": 1}
    return resource(records, failures=failures, gpuSeconds={"train": 5400, "generate": 1200}), told
