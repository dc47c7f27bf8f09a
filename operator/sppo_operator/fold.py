"""Records brought up to date with what the cluster shows. Pure, and the same whatever comes first or twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from sppo_operator.decide import Outcome, Step
from sppo_operator.facts import Attempt, Record, Records
from sppo_operator.observe import Observation
from sppo_operator.result import End
from sppo_operator.status import CAUSES

NEVER_SEEN = End(outcome=Outcome.VANISHED, exit_code=None, message="a later attempt was there before its end was seen")


def fold(
    records: Records, observations: Iterable[Observation], missing: Mapping[Step, End], now: str
) -> dict[Step, Record]:
    """The records with the attempts that the observations show.

    `missing` holds the steps whose recorded attempt runs no more, though nobody saw its end, and what to record. An
    attempt that is newer than its record is taken up, so a status that was wiped is made again from the Jobs.
    """
    folded = dict(records)
    by_attempt = sorted(observations, key=lambda seen: seen.attempt)
    for seen in by_attempt:
        folded[seen.step] = _with(folded.get(seen.step, Record()), seen, now)
    shown = {(seen.step, seen.attempt) for seen in by_attempt}
    for step, end in missing.items():
        if step in folded and (step, folded[step].attempts.made) not in shown:
            folded[step] = _closed(folded[step], end, now)
    return folded


def causes(before: Records, after: Records) -> Counter[str]:
    """How many attempts ended badly between the two, by the names of CAUSES; evictions that an attempt survived too."""
    counted: Counter[str] = Counter()
    for _, was, attempt in _moved(before, after):
        counted["eviction"] += _evictions(attempt) - (_evictions(was) if was else 0)
        if attempt.outcome in CAUSES and attempt.outcome is not Outcome.EVICTED:
            counted[CAUSES[attempt.outcome]] += 1
    return +counted


def gpu_seconds(before: Records, after: Records) -> Counter[str]:
    """What the attempts that ended between the two requested, by stage."""
    counted: Counter[str] = Counter()
    for step, _, attempt in _moved(before, after):
        if attempt.outcome is not Outcome.RUNNING:
            counted[step.stage.value] += attempt.gpus * (attempt.active_seconds or 0)
    return +counted


def _moved(before: Records, after: Records) -> Iterator[tuple[Step, Attempt | None, Attempt]]:
    """The attempts that had not ended before, as they were, if they were there, and as they are."""
    for step, record in after.items():
        known = {attempt.number: attempt for attempt in before.get(step, Record()).newest}
        for attempt in record.newest:
            was = known.get(attempt.number)
            if was is None or was.outcome is Outcome.RUNNING:
                yield step, was, attempt


def _evictions(attempt: Attempt) -> int:
    """The one that ended it may be among those that its Workload counted, or not yet."""
    return max(attempt.evictions, attempt.outcome is Outcome.EVICTED)


def _with(record: Record, seen: Observation, now: str) -> Record:
    if record.attempts.last is Outcome.SUCCEEDED or seen.attempt < record.attempts.made:
        return record
    if seen.attempt > record.attempts.made:
        record = _closed(record, NEVER_SEEN, now)
        record = replace(record, attempts=replace(record.attempts, made=seen.attempt - 1))
        record = record.started(seen.created, seen.image)
    if record.attempts.last is not Outcome.RUNNING:
        return record
    attempt = record.newest[-1]
    attempt = replace(
        _active(attempt, seen),
        evictions=max(attempt.evictions, seen.evictions),
        image=attempt.image or seen.image,
        gpus=attempt.gpus or seen.gpus,
    )
    record = replace(record, newest=(*record.newest[:-1], attempt))
    return _closed(record, seen.end, seen.finished) if seen.end else record


def _active(attempt: Attempt, seen: Observation) -> Attempt:
    """The stretches in which its pods could run.

    A stretch whose end nobody saw goes on into the next one: without it, GPU-seconds that were shown would be gone.
    """
    if seen.paused_at or seen.active_since:
        attempt = replace(attempt, active_seconds=attempt.active_seconds or 0)
    if seen.paused_at:
        return attempt.paused(seen.paused_at)
    return replace(attempt, active_since=attempt.active_since or seen.active_since)


def _closed(record: Record, end: End, finished: str) -> Record:
    """The record with the end of the attempt that runs, if one does."""
    if record.attempts.last is not Outcome.RUNNING:
        return record
    record = record.ended(end.outcome, finished, message=end.message, exit_code=end.exit_code, failures=end.failures)
    return record.with_result(end.metrics, end.content_digest, end.model)  # empty after a failure
