"""The report of a run: one HTML file with its verdict, curves, answers and configuration, readable anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sppo_operator.decide import Outcome, Stage, Step, schedule
from sppo_operator.facts import Attempt, Record, best_iteration, seconds_between, timestamp, win_rate
from sppo_operator.report import figures, reproduce, times
from sppo_operator.report.answers import answers
from sppo_operator.report.markup import section, text
from sppo_operator.report.style import STYLE
from sppo_operator.report.verdict import Remark, Tone, interval, percent, verdict
from sppo_operator.results import Curves, Made, Material
from sppo_operator.status import records_of
from sppo_operator.store import replace_file
from sppo_operator.summary import duration

# Even if something slipped through the escaping: nothing runs, nothing is loaded, nothing is sent.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
MARKS = {Tone.GOOD: "✓", Tone.BAD: "✗", Tone.UNSURE: "•"}


@dataclass(frozen=True, kw_only=True)
class Story:
    """All that is known of a run: its status, and what the workspace adds to it."""

    resource: Mapping[str, Any]
    records: Mapping[Step, Record]
    made: Mapping[Step, Made]
    curves: Mapping[int, Curves]
    material: Material
    now: str

    @classmethod
    def of(cls, resource: Mapping[str, Any], material: Material, now: str) -> Story:
        records = records_of(resource)
        made = {step: found for step in schedule(_newest(records)) if (found := material.made(step))}
        completed = {step: _completed(record, made.get(step)) for step, record in records.items()}
        numbers = range(1, _newest(records) + 1)
        curves = {number: curves for number in numbers if (curves := material.curves(number))}
        return cls(resource=resource, records=completed, made=made, curves=curves, material=material, now=now)

    @property
    def status(self) -> Mapping[str, Any]:
        status: Mapping[str, Any] = self.resource.get("status", {})
        return status

    @property
    def numbers(self) -> list[int]:
        return sorted({step.iteration for step in self.records})


def write_report(path: Path, resource: Mapping[str, Any], material: Material) -> None:
    replace_file(path, report(resource, material, timestamp(datetime.now(UTC))))


def report(resource: Mapping[str, Any], material: Material, now: str) -> str:
    """The whole page; sections without data are left out."""
    story = Story.of(resource, material, now)
    records, numbers, status = story.records, story.numbers, story.status
    sections = {
        "Results": figures.results(records, numbers),
        "Training": figures.training(records, story.curves),
        "Health of the policy": figures.health(records, numbers),
        "Answers before and after": _answers(story),
        "Time": times.times(records, numbers, status, now),
        "Failures and retries": times.failures(records, status),
        "Reproduce": reproduce.reproduce(
            resource, records, {step: made.provenance for step, made in story.made.items()}
        ),
    }
    there = {title.split(maxsplit=1)[0].lower(): title for title, body in sections.items() if body}
    links = "".join(f'<a href="#{identifier}">{text(title)}</a>' for identifier, title in there.items())
    body = "".join(section(title.split(maxsplit=1)[0].lower(), title, body) for title, body in sections.items())
    metadata = resource["metadata"]
    name = f"{metadata.get('namespace', 'default')}/{metadata['name']}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>SPPO run {text(name)}</title><style>{STYLE}</style></head>\n<body><main>{_header(story, name)}"
        f'{_cards(story)}<nav aria-label="Sections">{links}</nav>{body}</main></body></html>\n'
    )


def _completed(record: Record, made: Made | None) -> Record:
    """The record with what the status no longer holds of an older iteration, from the artifact of the step."""
    if made is None:
        return record
    known = Record().with_result(made.metrics, made.content_digest)
    digest = record.content_digest or known.content_digest
    completed = replace(record, metrics={**known.metrics, **record.metrics}, content_digest=digest)
    started, seconds = made.provenance.get("started"), made.provenance.get("seconds")
    if record.newest or not (isinstance(started, int | float) and isinstance(seconds, int | float)):
        return completed
    start, end = (timestamp(datetime.fromtimestamp(at, UTC)) for at in (started, started + seconds))
    attempt = Attempt(number=record.attempts.made, outcome=Outcome.SUCCEEDED, started=start, finished=end)
    return replace(completed, newest=(attempt,), first_started=start)


def _newest(records: Mapping[Step, Record]) -> int:
    return max((step.iteration for step in records), default=0)


def _header(story: Story, name: str) -> str:
    judged = verdict(story.resource, story.records)
    missing = [Remark(tone=Tone.UNSURE, title="Not in this report", sentence=why) for why in story.material.missing]
    remarks = "".join(
        f'<li class="{remark.tone}"><span aria-hidden="true">{MARKS[remark.tone]}</span> <b>{text(remark.title)}.</b> '
        f"{text(remark.sentence)}</li>"
        for remark in (*judged.remarks, *missing)
    )
    evidence = f": {judged.evidence}." if judged.evidence else "."
    phase = text(story.status.get("phase", "Waiting"))
    return (
        f'<header><p class="kind">SPPO run</p><h1>{text(name)} <span class="phase {_phase_tone(story)}">{phase}</span>'
        f'</h1><p class="verdict"><b class="{judged.tone}">{text(judged.claim)}</b>{text(evidence)}</p>'
        f'<p class="about">{text(_about(story))}</p>{f"<ul>{remarks}</ul>" if remarks else ""}</header>'
    )


def _phase_tone(story: Story) -> Tone:
    return {"Succeeded": Tone.GOOD, "Failed": Tone.BAD}.get(story.status.get("phase", ""), Tone.UNSURE)


def _about(story: Story) -> str:
    """What the run does, in a line."""
    spec = story.resource["spec"]
    started, finished = (story.status.get(key, "") for key in ("startTime", "finishTime"))
    when = f", started {_clock(started)}" if started else ""
    when += f", ended {_clock(finished)}" if finished else f", as of {_clock(story.now)}" if started else ""
    return (
        f"{spec['model']['source']}, {spec['iterations']} iterations of {spec['prompts']['perIteration']} prompts from "
        f"{spec['prompts']['source']}, judged by {spec['preference']['kind']}, beta {spec['objective']['beta']}{when}"
    )


def _clock(time: str) -> str:
    return f"{time[:10]} {time[11:16]} UTC"


def _cards(story: Story) -> str:
    """The key figures, each with what it is compared with."""
    records, status = story.records, story.status
    best = best_iteration(records)
    base, evaluated = (records.get(Step(number, Stage.EVALUATE), Record()) for number in (0, best or 0))
    cards: list[tuple[str, str, str]] = []
    if best is not None and (rate := win_rate(records, best)):
        cards.append(("Win rate vs base", percent(rate.value), f"iteration {best}, {interval(rate)}"))
        cards += _compared(base, evaluated)
    if wall := _wall_seconds(story):
        cards.append(
            ("Wall clock", duration(wall), f"iteration {_newest(records)} of {story.resource['spec']['iterations']}")
        )
    if gpus := times.gpu_seconds(status):
        cards.append(("GPU time", duration(gpus), f"{gpus:,} GPU-seconds requested"))
    failed = sum(status.get("failures", {}).values())
    attempts = sum(record.attempts.made for record in records.values())
    if attempts:
        cards.append(("Failures", str(failed), f"in {attempts} attempts of {len(records)} stages"))
    shown = "".join(
        f"<div><dt>{text(title)}</dt><dd><b>{text(value)}</b> {text(note)}</dd></div>" for title, value, note in cards
    )
    return f'<dl class="cards">{shown}</dl>' if shown else ""


def _compared(base: Record, evaluated: Record) -> list[tuple[str, str, str]]:
    cards = []
    for metric, title, shown in (
        ("passRate", "Pass rate", percent),
        ("meanTokens", "Tokens per answer", lambda value: f"{value:.3g}"),
    ):
        before, after = base.number(metric), evaluated.number(metric)
        if after is not None:
            cards.append((title, shown(after), "" if before is None else f"base {shown(before)}"))
    if (kl := evaluated.number("klPerResponse")) is not None:
        cards.append(("KL from the base", f"{kl:.3g}", "nats per response"))
    return cards


def _wall_seconds(story: Story) -> float:
    started = story.status.get("startTime")
    return seconds_between(started, story.status.get("finishTime") or story.now) if started else 0.0


def _answers(story: Story) -> str:
    best = best_iteration(story.records)
    if best is None:
        return ""
    against = story.resource["spec"]["evaluation"]["against"]
    held_out = story.records.get(Step(0, Stage.PREPARE), Record()).number("heldOut")
    before = "base" if "Base" in against else f"iteration {best - 1}"
    return answers(story.material.samples(best), before=before, after=f"iteration {best}", held_out=held_out)
