"""What a report says of a run in words: the claim follows the interval, and every warning its figures."""

from __future__ import annotations

from typing import Any

import pytest
from sppo_operator.decide import Fail, Finish, GiveUp, Outcome, Stage, Step
from sppo_operator.facts import Record, WinRate
from sppo_operator.report.verdict import Tone, interval, percent, verdict
from told import at, done, evaluated, rates, resource


def evaluations(*bases: float, **more: Any) -> dict[Step, Record]:
    """The base and one iteration for each win rate."""
    records = {Step(0, Stage.EVALUATE): evaluated(0, 0.5, **more)}
    return records | {Step(number, Stage.EVALUATE): evaluated(number, base) for number, base in enumerate(bases, 1)}


def judged(records: dict[Step, Record], *actions: Any) -> tuple[str, list[str]]:
    """The first sentence, and the titles of the remarks."""
    found = verdict(resource(records, *actions), records)
    return found.claim, [remark.title for remark in found.remarks]


@pytest.mark.parametrize(
    ("rate", "claim", "tone"),
    [
        (0.6, "Iteration 1 is better than the base model", Tone.GOOD),
        (0.53, "Iteration 1 cannot be told from the base model", Tone.UNSURE),
        (0.47, "Iteration 1 cannot be told from the base model", Tone.UNSURE),
        (0.3, "Iteration 1 is worse than the base model", Tone.BAD),
    ],
)
def test_the_claim_follows_the_interval(rate: float, claim: str, tone: Tone) -> None:
    records = evaluations(rate)
    found = verdict(resource(records), records)
    assert (found.claim, found.tone, found.remarks) == (claim, tone, ())


@pytest.mark.parametrize(
    ("value", "shown"), [(0.29, "29"), (-0.001, "0"), (12.34, "1234"), (1e20, "1e+22"), (1e308, "inf")]
)
def test_percentages_of_any_size(value: float, shown: str) -> None:
    assert percent(value) == f"{shown}\N{NO-BREAK SPACE}%"


def test_percentages_are_those_of_the_tables() -> None:
    value = 0.925
    rate = WinRate(value=value, low=value, high=value)
    assert str(rate) == "0.93 [0.93, 0.93]"
    assert (percent(value), interval(rate)) == (
        "93\N{NO-BREAK SPACE}%",
        "95\N{NO-BREAK SPACE}% interval 93 to 93\N{NO-BREAK SPACE}%",
    )


def test_the_best_iteration_is_the_one_that_is_told_about() -> None:
    assert judged(evaluations(0.6, 0.7)) == ("Iteration 2 is better than the base model", [])
    assert judged(evaluations(0.7, 0.68)) == ("Iteration 1 is better than the base model", ["Past its best"])


@pytest.mark.parametrize(
    ("later", "says"), [(0.68, "though the intervals overlap"), (0.5, "take the policy of the best")]
)
def test_a_run_past_its_best_says_how_surely(later: float, says: str) -> None:
    records = evaluations(0.7, later)
    (remark,) = verdict(resource(records), records).remarks
    assert says in remark.sentence


@pytest.mark.parametrize(
    ("second", "title", "claim"),
    [
        (0.68, "The second oracle agrees", "Iteration 1 is better than the base model"),
        (0.6, "The second oracle sees less", "Iteration 1 is better than the base model"),
        (
            0.52,
            "The second oracle disagrees",
            "Iteration 1 is better than the base model, says the oracle of its training alone",
        ),
        (
            0.3,
            "The second oracle disagrees",
            "Iteration 1 is better than the base model, says the oracle of its training alone",
        ),
    ],
)
def test_two_oracles(second: float, title: str, claim: str) -> None:
    record = done(1, 2, **rates(0.7, second=second))
    assert judged({Step(1, Stage.EVALUATE): record}) == (claim, [title])


@pytest.mark.parametrize(
    ("figures", "title"),
    [
        ({"meanTokens": 17.0}, "Answers became longer"),
        ({"meanTokens": 6.0}, "Answers became shorter"),
        ({"meanTokens": 15.0}, None),
        ({"cutShare": 0.2}, "Answers were cut"),
        ({"distinctShare": 0.3}, "Answers are alike"),
    ],
)
def test_what_to_look_at(figures: dict[str, float], title: str | None) -> None:
    records = {Step(0, Stage.EVALUATE): evaluated(0, 0.5), Step(1, Stage.EVALUATE): evaluated(1, 0.6, **figures)}
    assert judged(records)[1] == ([title] if title else [])


def test_a_failed_run_says_why_and_how_it_goes_on() -> None:
    step = Step(1, Stage.SCORE)
    records = {step: Record().started(at(1)).ended(Outcome.USER_FAULT, at(2), message="bad line 7", exit_code=65)}
    (remark,) = verdict(resource(records, Fail(step, "UserFault", "score 1: bad line 7: mend it")), records).remarks
    assert (remark.tone, remark.title) == (Tone.BAD, "Failed (UserFault)")
    assert remark.sentence.startswith("score 1: bad line 7: mend it. When that is mended, change the annotation")


def test_a_degraded_run_says_so_before_what_is_less_grave() -> None:
    records = evaluations(0.7, 0.68)
    actions = (GiveUp(Step(2, Stage.EVALUATE), "no memory"), Finish())
    assert judged(records, *actions)[1] == ["Degraded (EvaluationFailed)", "Past its best"]
