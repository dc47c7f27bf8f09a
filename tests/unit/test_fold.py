"""Records from observations: a table of single steps, then whole lives of a step under every disorder."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from cluster_objects import at
from hypothesis import given
from hypothesis import strategies as st
from sppo_operator.decide import Attempts, Outcome, Stage, Step
from sppo_operator.facts import Attempt, Record, Records
from sppo_operator.fold import causes, fold, gpu_seconds
from sppo_operator.observe import Observation
from sppo_operator.result import End

TRAIN, SCORE = Step(1, Stage.TRAIN), Step(1, Stage.SCORE)
GONE = End(outcome=Outcome.VANISHED, exit_code=None, message="its Job is gone")
STOPPED = End(outcome=Outcome.SUSPENDED, exit_code=None, message="stopped by spec.suspend")
LATER = at(1000)


def ended(outcome: Outcome, failures: int = 1) -> End:
    if outcome is Outcome.SUCCEEDED:
        return End(outcome=outcome, exit_code=0, metrics={"rows": 3}, content_digest="abc")
    return End(outcome=outcome, exit_code=1, message=f"{outcome.value} happened", failures=failures)


def seen(attempt: int, end: End | None = None, *, step: Step = TRAIN, evictions: int = 0, **more: Any) -> Observation:
    """An attempt that began at second 100 * attempt and took 10 s."""
    return Observation(
        job=f"demo-{step}-a{attempt}",
        uid=f"uid-{step}-{attempt}",
        step=step,
        attempt=attempt,
        image=f"trainer:{attempt}",
        created=at(100 * attempt),
        end=end,
        finished=at(100 * attempt + 10) if end else "",
        evictions=evictions,
        **more,
    )


RUNNING = Record().started(at(100), "trainer:1")
FAILED = RUNNING.ended(Outcome.FAILED, at(110), message="Application happened", exit_code=1)
SUCCEEDED = RUNNING.ended(Outcome.SUCCEEDED, at(110), exit_code=0).with_result({"rows": 3}, "abc")
FAIL, SUCCEED = ended(Outcome.FAILED), ended(Outcome.SUCCEEDED)

STEPS: dict[str, tuple[Record | None, list[Observation], dict[Step, End], Record]] = {
    "an attempt nobody recorded": (None, [seen(1)], {}, RUNNING),
    "an attempt that goes on": (RUNNING, [seen(1)], {}, RUNNING),
    "a success": (RUNNING, [seen(1, SUCCEED)], {}, SUCCEEDED),
    "a failure": (RUNNING, [seen(1, FAIL)], {}, FAILED),
    "a failure of a shard, charged whole": (
        RUNNING,
        [seen(1, ended(Outcome.FAILED, failures=4))],
        {},
        replace(FAILED, attempts=Attempts(made=1, charged=4, last=Outcome.FAILED, message="Application happened")),
    ),
    "what is recorded is not recorded again": (FAILED, [seen(1, FAIL)], {}, FAILED),
    "nor is what happens to it later": (FAILED, [seen(1, SUCCEED, evictions=3)], {}, FAILED),
    "a success is final, even if its Jobs were numbered on": (SUCCEEDED, [seen(1), seen(2, FAIL)], {}, SUCCEEDED),
    "the next attempt, whose record was lost": (FAILED, [seen(1, FAIL), seen(2)], {}, FAILED.started(at(200), "trainer:2")),
    "the next attempt, after one whose end nobody saw": (
        RUNNING,
        [seen(2)],
        {},
        RUNNING.ended(Outcome.VANISHED, LATER, message="a later attempt was there before its end was seen").started(at(200), "trainer:2"),
    ),
    "a wiped status, and a Job between was removed": (
        None,
        [seen(1, FAIL), seen(3)],
        {},
        replace(FAILED, attempts=replace(FAILED.attempts, made=2)).started(at(300), "trainer:3"),
    ),
    "a Job that is gone": (RUNNING, [], {TRAIN: GONE}, RUNNING.ended(Outcome.VANISHED, LATER, message="its Job is gone")),
    "a Job that was removed by a suspension": (RUNNING, [], {TRAIN: STOPPED}, RUNNING.ended(Outcome.SUSPENDED, LATER, message="stopped by spec.suspend")),
    "a Job that is shown is not gone": (RUNNING, [seen(1)], {TRAIN: GONE}, RUNNING),
    "a Job that is gone after its end": (FAILED, [], {TRAIN: GONE}, FAILED),
    "evictions that it survived": (
        RUNNING,
        [seen(1, evictions=2)],
        {},
        replace(RUNNING, newest=(replace(RUNNING.newest[0], evictions=2),)),
    ),
    "evictions are not forgotten with the Workload": (
        replace(RUNNING, newest=(replace(RUNNING.newest[0], evictions=2),)),
        [seen(1, evictions=0)],
        {},
        replace(RUNNING, newest=(replace(RUNNING.newest[0], evictions=2),)),
    ),
    "an image that was not recorded": (Record().started(at(100)), [seen(1)], {}, RUNNING),
}  # fmt: skip


@pytest.mark.parametrize(("before", "observations", "missing", "after"), STEPS.values(), ids=STEPS)
def test_one_step(
    before: Record | None, observations: list[Observation], missing: dict[Step, End], after: Record
) -> None:
    records = {} if before is None else {TRAIN: before}
    assert fold(records, observations, missing, LATER) == {TRAIN: after}
    assert records == ({} if before is None else {TRAIN: before}), "the records of before are left as they were"


def test_a_failure_that_the_user_has_forgiven_is_not_recorded_again() -> None:
    renewed = replace(FAILED, attempts=FAILED.attempts.renewed())
    assert fold({TRAIN: renewed}, [seen(1, FAIL)], {}, LATER) == {TRAIN: renewed}


def test_steps_are_told_apart() -> None:
    records = fold({}, [seen(1, FAIL), seen(1, SUCCEED, step=SCORE)], {SCORE: GONE}, LATER)
    assert {step: record.attempts.last for step, record in records.items()} == {
        TRAIN: Outcome.FAILED,
        SCORE: Outcome.SUCCEEDED,
    }


# Whole lives: every attempt but the last was retried, so it did not succeed.

NOT_FINAL = [Outcome.FAILED, Outcome.DISRUPTED, Outcome.EVICTED, Outcome.SUSPENDED]
LIVES = st.tuples(
    st.lists(st.builds(ended, st.sampled_from(NOT_FINAL), st.integers(1, 4)), max_size=6),
    st.sampled_from([None, ended(Outcome.SUCCEEDED), ended(Outcome.USER_FAULT), ended(Outcome.FAILED)]),
)
Life = tuple[list[End], End | None]


def jobs_of(life: Life) -> list[Observation]:
    """The Jobs of a life, as they are at its end."""
    ends, last = life
    return [seen(number, end) for number, end in enumerate([*ends, last], start=1)]


def undisturbed(jobs: list[Observation]) -> dict[Step, Record]:
    """The records of an operator that saw every start and every end as it happened: the slow and obvious way."""
    record = Record()
    for job in jobs:
        record = record.started(job.created, job.image)
        if job.end:
            end = job.end
            record = record.ended(end.outcome, job.finished, message=end.message, exit_code=end.exit_code, failures=end.failures)  # fmt: skip
            if end.outcome is Outcome.SUCCEEDED:
                record = record.with_result(end.metrics, end.content_digest)
    return {TRAIN: record}


@given(LIVES, st.randoms(use_true_random=False))
def test_a_wiped_status_comes_back_from_the_jobs_in_any_order(life: Life, shuffler: random.Random) -> None:
    jobs = jobs_of(life)
    expected = undisturbed(jobs)
    shuffler.shuffle(jobs)
    assert fold({}, jobs, {}, LATER) == expected


@given(LIVES, st.data())
def test_an_operator_that_died_anywhere_catches_up(life: Life, data: st.DataObject) -> None:
    """It has recorded the first attempts only, perhaps without the end of the last of them."""
    jobs = jobs_of(life)
    known = jobs[: data.draw(st.integers(0, len(jobs)), "recorded attempts")]
    was_running = data.draw(st.booleans(), "the last one ran when it died")
    if known and was_running:
        known[-1] = replace(known[-1], end=None, finished="")
    records = undisturbed(known) if known else {}
    assert fold(records, jobs, {}, LATER) == undisturbed(jobs)


SEEN = st.builds(
    seen,
    st.integers(1, 5),
    st.none() | st.builds(ended, st.sampled_from([outcome for outcome in Outcome if outcome is not Outcome.RUNNING])),
    step=st.sampled_from([TRAIN, SCORE]),
    evictions=st.integers(0, 3),
)
SEVERAL = st.lists(SEEN, max_size=6, unique_by=lambda one: (one.step, one.attempt))
MISSING = st.dictionaries(st.sampled_from([TRAIN, SCORE]), st.sampled_from([GONE, STOPPED]))


@given(SEVERAL, MISSING, SEVERAL, MISSING, st.randoms(use_true_random=False))
def test_whatever_is_seen_nothing_is_lost_and_twice_is_once(
    first: list[Observation],
    gone_first: dict[Step, End],
    then: list[Observation],
    gone_then: dict[Step, End],
    shuffler: random.Random,
) -> None:
    before = fold({}, first, gone_first, at(500))
    after = fold(before, then, gone_then, LATER)
    assert fold(after, then, gone_then, at(2000)) == after, "idempotent"
    shuffled = list(then)
    shuffler.shuffle(shuffled)
    assert fold(before, shuffled, gone_then, LATER) == after, "the order does not matter"
    for step, record in before.items():
        assert after[step].attempts.made >= record.attempts.made
        assert after[step].attempts.charged >= record.attempts.charged
        if record.attempts.last is Outcome.SUCCEEDED:
            assert after[step] == record, "a success is final"
        evictions = {one.number: one.evictions for one in after[step].newest}
        assert all(evictions.get(one.number, one.evictions) >= one.evictions for one in record.newest)
    for record in after.values():
        numbers = [one.number for one in record.newest]
        assert numbers == sorted(set(numbers)), "attempts are numbered upwards"
        assert numbers[-1] == record.attempts.made
        assert all(one.outcome is not Outcome.RUNNING for one in record.newest[:-1]), "one attempt at a time"


# Time at work

A, B = {"active_since": at(100), "gpus": 8}, {"active_since": at(700), "gpus": 8}
PAUSED = {"paused_at": at(160), "gpus": 8}
STRETCHES: dict[str, tuple[list[Observation], int | None, str | None]] = {
    "not begun": ([seen(1)], None, None),
    "waits in its queue": ([seen(1, paused_at=at(100))], 0, None),
    "at work": ([seen(1), seen(1, **A)], 0, at(100)),
    "seen again": ([seen(1, **A), seen(1, **A)], 0, at(100)),
    "stopped": ([seen(1, **A), seen(1, **PAUSED), seen(1, **PAUSED)], 60, None),
    "on its way to be stopped": ([seen(1, **A), seen(1)], 0, at(100)),
    "resumed": ([seen(1, **A), seen(1, **PAUSED), seen(1, **B)], 60, at(700)),
    "resumed, and nobody saw that it was stopped": ([seen(1, **A), seen(1, **B)], 0, at(100)),
    "stopped again after that": ([seen(1, **A), seen(1, **B), seen(1, paused_at=at(800))], 700, None),
    "ended": ([seen(1, **A), seen(1, FAIL, **A)], 10, None),
    "begun and ended between two looks": ([seen(1, SUCCEED, **A)], 10, None),
    "stopped, resumed and ended": ([seen(1, **A), seen(1, **PAUSED), replace(seen(1, FAIL, **B), finished=at(705))], 65, None),
    "ended while it was stopped": ([seen(1, **A), replace(seen(1, FAIL, **PAUSED), finished=at(900))], 60, None),
    "ended before it began, by another clock": ([replace(seen(1, FAIL, **A), finished=at(90))], 0, None),
}  # fmt: skip


@pytest.mark.parametrize(("observations", "seconds", "since"), STRETCHES.values(), ids=STRETCHES)
def test_time_at_work_is_that_in_which_pods_could_run(
    observations: list[Observation], seconds: int | None, since: str | None
) -> None:
    records: Records = {TRAIN: RUNNING}
    for one in observations:
        records = fold(records, [one], {}, LATER)
    [attempt] = records[TRAIN].newest
    assert (attempt.active_seconds, attempt.active_since) == (seconds, since)


def test_a_job_that_is_gone_was_at_work_until_that_was_seen() -> None:
    records = fold(fold({}, [seen(1, **A)], {}, at(150)), [], {TRAIN: GONE}, at(400))
    assert records[TRAIN].newest[0].active_seconds == 300
    assert records[TRAIN].seconds == 300


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ([], [seen(1, **A)], {}),
        ([seen(1, **A)], [seen(1, FAIL, **A)], {"train": 80}),
        ([seen(1, FAIL, **A)], [seen(1, FAIL, **A)], {}),
        ([], [seen(1, FAIL, **A), seen(1, SUCCEED, step=SCORE, **A)], {"train": 80, "score": 80}),
        ([seen(1, **A)], [seen(1, FAIL, **A), seen(2, FAIL, active_since=at(205), gpus=4)], {"train": 100}),
        ([seen(1, active_since=at(100))], [seen(1, FAIL, active_since=at(100))], {}),
    ],
    ids=["runs", "ended", "ended long ago", "two stages", "two attempts", "without GPUs"],
)
def test_gpu_seconds_are_counted_when_an_attempt_ends(
    before: list[Observation], now: list[Observation], expected: dict[str, int]
) -> None:
    old = fold({}, before, {}, LATER)
    assert gpu_seconds(old, fold(old, now, {}, LATER)) == Counter(expected)


# Failures by cause

CAUSES = {
    "nothing new": (FAILED, FAILED, {}),
    "a failure": (RUNNING, FAILED, {"application": 1}),
    "a failure that was never seen running": (None, FAILED, {"application": 1}),
    "a user's fault": (RUNNING, RUNNING.ended(Outcome.USER_FAULT, LATER), {"user": 1}),
    "a disruption": (RUNNING, RUNNING.ended(Outcome.DISRUPTED, LATER), {"disruption": 1}),
    "a Job that vanished": (RUNNING, RUNNING.ended(Outcome.VANISHED, LATER), {"disruption": 1}),
    "a suspension is no failure": (RUNNING, RUNNING.ended(Outcome.SUSPENDED, LATER), {}),
    "a success": (RUNNING, SUCCEEDED, {}),
    "a start": (None, RUNNING, {}),
    "the end of one attempt and the start of the next": (RUNNING, FAILED.started(LATER), {"application": 1}),
    "two attempts": (RUNNING, FAILED.started(LATER).ended(Outcome.DISRUPTED, LATER), {"application": 1, "disruption": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after", "expected"), CAUSES.values(), ids=CAUSES)
def test_failures_by_cause(before: Record | None, after: Record, expected: dict[str, int]) -> None:
    assert causes({} if before is None else {TRAIN: before}, {TRAIN: after}) == Counter(expected)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((Outcome.RUNNING, 0), (Outcome.RUNNING, 2), 2),
        ((Outcome.RUNNING, 2), (Outcome.RUNNING, 2), 0),
        ((Outcome.RUNNING, 0), (Outcome.EVICTED, 0), 1),
        ((Outcome.RUNNING, 0), (Outcome.EVICTED, 1), 1),
        ((Outcome.RUNNING, 1), (Outcome.EVICTED, 1), 0),
        ((Outcome.RUNNING, 1), (Outcome.EVICTED, 2), 1),
        ((Outcome.EVICTED, 0), (Outcome.EVICTED, 0), 0),
        ((Outcome.RUNNING, 1), (Outcome.SUCCEEDED, 3), 2),
    ],
    ids=[
        "survived two",
        "nothing new",
        "ended by one that its Workload has not counted",
        "ended by one that it has counted",
        "ended by the one that was counted while it ran",
        "survived one, and ended by another",
        "over long ago",
        "survived two more until its success",
    ],
)
def test_an_eviction_is_counted_once(before: tuple[Outcome, int], after: tuple[Outcome, int], expected: int) -> None:
    def record(outcome: Outcome, evictions: int) -> Record:
        attempt = Attempt(number=1, outcome=outcome, started=at(0), evictions=evictions)
        return Record(attempts=Attempts(made=1, last=outcome), newest=(attempt,))

    assert causes({TRAIN: record(*before)}, {TRAIN: record(*after)}) == Counter(eviction=expected)


@given(LIVES)
def test_counting_step_by_step_or_at_once_gives_the_same(life: Life) -> None:
    jobs = jobs_of(life)[-4:]  # the newest attempts are all that a record remembers
    one_by_one: Counter[str] = Counter()
    records: dict[Step, Record] = {}
    for job in jobs:
        for shown in (replace(job, end=None, finished=""), job):
            after = fold(records, [shown], {}, LATER)
            one_by_one += causes(records, after)
            records = after
    assert causes({}, fold({}, jobs, {}, LATER)) == one_by_one
