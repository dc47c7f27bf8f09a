"""Which answers a report shows: both ends and the middle, each once, and how they were chosen."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sppo_operator.report.answers import answers

GROUPS = re.compile(r"<h3>(.*?)</h3>")


def sample(win_rate: float | None, number: int = 0, rank: int | None = None) -> dict[str, Any]:
    scores = {"scoreBefore": None, "scoreAfter": 0.5}
    row = {"prompt": f"prompt {number:03}", "before": "b", "after": "a", "winRate": win_rate} | scores
    return row if rank is None else row | {"rank": rank}


def ranked(count: int) -> list[dict[str, Any]]:
    """So many prompts in no order, whose win rates fall from 1 to 0."""
    order = sorted(range(count), key=lambda index: index * 7 % count)
    return [sample(1 - rank / (count - 1), number=rank + 1, rank=rank + 1) for rank in order]


def shown(samples: list[dict[str, Any]], held_out: float | None = None) -> dict[str, list[int]]:
    """The numbers of the prompts under every title, folded ones under `more`."""
    page, _, folded = answers(samples, before="base", after="iteration 2", held_out=held_out).partition("<details>")
    parts = GROUPS.split(page)[1:]
    found = dict(zip(parts[::2], parts[1::2], strict=True)) | ({"more": folded} if folded else {})
    return {title: [int(number) for number in re.findall(r"prompt (\d+)", text)] for title, text in found.items()}


def test_the_ends_and_the_middle() -> None:
    assert shown(ranked(32)) == {
        "Best improvements": [1, 2, 3, 4],
        "Typical": [15, 16, 17, 18],
        "Worst regressions": [32, 31, 30, 29],
        "more": [*range(5, 15), *range(19, 29)],
    }


@pytest.mark.parametrize("count", range(2, 40))
def test_every_answer_is_there_once(count: int) -> None:
    found = [number for group in shown(ranked(count)).values() for number in group]
    assert sorted(found) == list(range(1, count + 1))


def test_where_nothing_got_worse_there_are_no_regressions() -> None:
    samples = [sample(rate, number) for number, rate in enumerate([1.0, 0.9, 0.8, 0.7, 0.6, 0.5])]
    assert shown(samples) == {"Best improvements": [0, 1, 2, 3], "Typical": [4, 5]}


def test_where_nothing_got_better_there_are_no_improvements() -> None:
    assert shown([sample(0.5, 1), sample(0.2, 2)]) == {"Typical": [1], "Worst regressions": [2]}


@pytest.mark.parametrize(
    ("samples", "held_out", "how"),
    [
        (ranked(32), 100.0, "of all 100 held-out prompts the evaluation kept 32: those that were won most"),
        (ranked(32), 32.0, "all 32 held-out prompts are here"),
        ([sample(0.7)], 100.0, "the evaluation kept the first 1 of 100 held-out prompts, in no order"),
    ],
)
def test_the_reader_learns_how_they_were_chosen(samples: list[dict[str, Any]], held_out: float, how: str) -> None:
    assert how in answers(samples, before="base", after="iteration 1", held_out=held_out)


def test_scores_that_an_oracle_does_not_give_are_left_out() -> None:
    page = answers([sample(None)], before="base", after="iteration 1", held_out=None)
    assert "win rate" not in page.partition("<article>")[2]
    assert page.count("score 0.50") == page.count("score ") == 1


def test_of_a_long_text_the_beginning_is_shown() -> None:
    texts = {name: mark * 400_000 for name, mark in (("prompt", "\u2460"), ("before", "\u2461"), ("after", "\u2462"))}
    page = answers([sample(0.7) | texts], before="base", after="iteration 1", held_out=None)
    assert page.count(" … 395904 more characters") == 3
    assert [page.count(text[0]) for text in texts.values()] == [4096] * 3


def test_no_samples_no_section() -> None:
    assert answers([], before="base", after="iteration 1", held_out=8.0) == ""
