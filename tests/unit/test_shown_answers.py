"""Which held-out answers an evaluation keeps for people: both ends and the middle, not the first ones."""

from __future__ import annotations

import pytest
from sppo_trainer.evaluate import ranks_to_show


@pytest.mark.parametrize("count", [1, 31, 32])
def test_few_prompts_are_all_shown(count: int) -> None:
    assert ranks_to_show([0.5] * count) == {index: index + 1 for index in range(count)}


def test_of_many_the_ends_and_the_middle_are_shown() -> None:
    win_rates = [index / 99 for index in range(100)]  # the last prompt won most
    ranks = ranks_to_show(win_rates)
    assert sorted(ranks.values()) == [*range(1, 9), *range(43, 59), *range(93, 101)]
    assert ranks[99] == 1
    assert ranks[0] == 100
