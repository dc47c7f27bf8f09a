"""How the prompts of a step are divided among ranks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sppo_trainer.selection import micro_batches
from sppo_trainer.sharding import balanced, turns

TOKENS = st.lists(st.integers(1, 200), min_size=1, max_size=30)
RANKS = st.integers(1, 5)


def test_the_longest_prompts_go_to_different_ranks() -> None:
    # 90 | 80, then 20 to the 80, then 10 to the 90; each share in the order of the batch
    assert balanced([3, 1, 0, 2], [90, 10, 20, 80], 2) == [[1, 0], [3, 2]]


def test_a_rank_without_prompts_has_empty_turns() -> None:
    assert turns([0, 1], [50, 50], ranks=3, budget=100) == [((0,), (1,), ())]
    assert turns([0, 1, 2], [90, 30, 30], ranks=2, budget=50) == [((0,), (1,)), ((), (2,))]


@given(TOKENS, RANKS)
def test_every_prompt_has_one_turn_and_no_turn_is_empty_for_all(tokens: list[int], ranks: int) -> None:
    planned = turns(range(len(tokens)), tokens, ranks=ranks, budget=100)
    assert all(len(turn) == ranks and any(turn) for turn in planned)
    assert sorted(index for turn in planned for part in turn for index in part) == list(range(len(tokens)))
    assert all(len(part) <= 1 or sum(tokens[i] for i in part) <= 100 for turn in planned for part in turn)


@given(TOKENS, RANKS)
def test_no_rank_has_a_prompt_more_than_it_must(tokens: list[int], ranks: int) -> None:
    loads = [sum(tokens[index] for index in share) for share in balanced(range(len(tokens)), tokens, ranks)]
    assert max(loads) - min(loads) <= max(tokens)


@given(TOKENS)
def test_one_rank_does_what_the_plan_says(tokens: list[int]) -> None:
    planned = turns(range(len(tokens)), tokens, ranks=1, budget=100)
    assert planned == [(batch,) for batch in micro_batches(range(len(tokens)), tokens, 100)]
