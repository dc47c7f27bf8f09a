"""When each stage ran, as bars over wall clock: what failed, and what was waited for before another attempt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sppo_operator.decide import Outcome, Stage, Step
from sppo_operator.facts import Attempt, Records, in_order
from sppo_operator.report.charts import ticks
from sppo_operator.report.markup import text
from sppo_operator.summary import duration

KINDS = {Outcome.SUCCEEDED: "done", Outcome.RUNNING: "running"}
"""The style sheet's classes; every other outcome is `lost`."""
UNITS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0, "days": 86400.0}
LEAST_PERCENT = 0.35
"""Of the width: a stage of a second is seen beside one of an hour."""
BAR, ROW = 16, 24
LABELLED_PERCENT = 4.0
LEAST_HELD_SECONDS = 2.0
"""Below that, times in whole seconds say nothing."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    step: Step
    kind: str
    start: datetime
    end: datetime
    title: str


def timeline(records: Records, now: str) -> str:
    """Empty if nothing has a time; what still runs ends at `now`."""
    bars = list(_bars(records, datetime.fromisoformat(now)))
    if not bars:
        return ""
    first, last = min(bar.start for bar in bars), max(bar.end for bar in bars)
    span = max((last - first).total_seconds(), 1.0)
    rows = []
    for stage in Stage:
        own = [bar for bar in bars if bar.step.stage is stage]
        if own:
            rows.append(f"<div>{stage.value}</div>{_row(own, first, span)}")
    words = f"Stages over {duration(span)} from {_clock(first)} to {_clock(last)} UTC; the tables below have the times."
    return (
        '<figure class="timeline"><figcaption>Stages over wall clock'
        f'{_legend(bar.kind for bar in bars)}</figcaption><div class="rows" role="img" aria-label="{text(words)}">'
        f"{''.join(rows)}<div></div>{_scale(first, span)}</div></figure>"
    )


def _bars(records: Records, now: datetime) -> Iterator[Bar]:
    for step in in_order(records):
        before: Attempt | None = None
        for attempt in records[step].newest:
            start = datetime.fromisoformat(attempt.started)
            end = datetime.fromisoformat(attempt.finished) if attempt.finished else max(now, start)
            if before is not None and before.finished:
                waited = datetime.fromisoformat(before.finished)
                why = f"{step} waited {duration((start - waited).total_seconds())} for attempt {attempt.number}"
                yield Bar(step=step, kind="waiting", start=waited, end=max(start, waited), title=why)
            if held := _held_seconds(attempt, start, end):
                # Where within the attempt is not known; nearly always a queue holds it before its first pod.
                worked = start + timedelta(seconds=held)
                why = f"{step}, attempt {attempt.number} was held back for {duration(held)}: in its queue, or suspended"
                yield Bar(step=step, kind="waiting", start=start, end=worked, title=why)
                start = worked
            if start < end or not held:
                kind = KINDS.get(attempt.outcome, "lost")
                yield Bar(step=step, kind=kind, start=start, end=end, title=_title(step, attempt, start, end))
            before = attempt


def _held_seconds(attempt: Attempt, start: datetime, end: datetime) -> float:
    """How much of an attempt its pods could not run."""
    held = (end - start).total_seconds() - attempt.seconds_at(end)
    return held if held >= LEAST_HELD_SECONDS else 0.0


def _title(step: Step, attempt: Attempt, start: datetime, end: datetime) -> str:
    parts = [
        f"{step}, attempt {attempt.number}: {attempt.outcome.value}",
        f"{duration((end - start).total_seconds())} from {_clock(start)}",
        f"{attempt.gpus} GPUs" if attempt.gpus else "",
        f"evicted from its queue {attempt.evictions} times" if attempt.evictions else "",
        attempt.message,
    ]
    return "; ".join(filter(None, parts))


def _row(bars: Sequence[Bar], first: datetime, span: float) -> str:
    shown = "".join(_rect(bar, first, span) for bar in bars)
    return f'<svg width="100%" height="{ROW}" aria-hidden="true">{shown}</svg>'


def _rect(bar: Bar, first: datetime, span: float) -> str:
    x = 100 * (bar.start - first).total_seconds() / span
    width = max(LEAST_PERCENT, 100 * (bar.end - bar.start).total_seconds() / span)
    x = min(x, 100 - width)
    rect = (
        f'<rect class="{bar.kind}" x="{x:.2f}%" y="{(ROW - BAR) / 2:.0f}" width="{width:.2f}%" height="{BAR}" rx="2">'
        f"<title>{text(bar.title)}</title></rect>"
    )
    if bar.step.stage is Stage.PREPARE or width < LABELLED_PERCENT or bar.kind == "waiting":
        return rect
    middle = f'x="{x + width / 2:.2f}%" y="{ROW / 2 + 4:.0f}"'
    return f'{rect}<text class="on-{bar.kind}" {middle} text-anchor="middle">{bar.step.iteration}</text>'


def _scale(first: datetime, span: float) -> str:
    """Time since the first start, in the largest unit of which there are two."""
    unit, seconds = max(
        ((name, size) for name, size in UNITS.items() if span >= 2 * size),
        default=("seconds", 1.0),
        key=lambda item: item[1],
    )
    marks = [tick for tick in ticks(0, span / seconds, whole=True) if tick * seconds <= span]
    labels = []
    for tick in marks:
        at = 100 * tick * seconds / span
        anchor = "start" if at < 3 else "end" if at > 97 else "middle"
        labels.append(f'<text x="{at:.2f}%" y="15" text-anchor="{anchor}">{tick:g}</text>')
    return (
        f'<svg class="scale" width="100%" height="20" aria-hidden="true">{"".join(labels)}</svg><div></div>'
        f'<div class="unit">{unit} since {_clock(first)} UTC</div>'
    )


def _legend(kinds: Iterable[str]) -> str:
    words: Mapping[str, str] = {
        "done": "succeeded, with the iteration's number",
        "running": "running",
        "lost": "failed or interrupted",
        "waiting": "waiting for a queue or another attempt",
    }
    there = set(kinds)
    keys = "".join(
        f'<span class="key"><svg viewBox="0 0 14 14" aria-hidden="true"><rect class="{kind}" width="14" height="14" '
        f'rx="2"/></svg>{text(meaning)}</span>'
        for kind, meaning in words.items()
        if kind in there
    )
    return f'<span class="keys">{keys}</span>'


def _clock(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
