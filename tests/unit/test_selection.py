"""Which responses are trained, in which batches, at which learning rate."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sppo_trainer.config import Objective
from sppo_trainer.selection import batch_plan, learning_rate, micro_batches, select

RATES = [0.5, 0.9, 0.1, 0.5]


def objective(**changes: Any) -> Objective:
    return Objective(**({"beta": 0.05} | changes))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (objective(), [(1, "best", 8.0), (2, "worst", -8.0)]),
        (objective(target="Hard"), [(1, "best", 10.0), (2, "worst", -10.0)]),
        (objective(normalizer="Constant", constant=1.0), [(1, "best", -2.0), (2, "worst", -18.0)]),
        (
            objective(responses="All"),
            [(0, "other", 0.0), (1, "best", 8.0), (2, "worst", -8.0), (3, "other", 0.0)],
        ),
    ],
    ids=["best and worst", "hard", "constant", "all"],
)
def test_targets_of_eta_20(config: Objective, expected: list[tuple[int, str, float]]) -> None:
    chosen = [(target.k, target.role, pytest.approx(target.target)) for target in select(RATES, config)]
    assert chosen == expected


def test_a_tied_prompt_is_not_trained() -> None:
    assert select([0.5, 0.5, 0.5], objective()) == []


def plan(count: int, **changes: Any) -> Any:
    settings: dict[str, Any] = {"batch_size": 4, "epochs": 1, "tokens_per_micro_batch": 100, "seed": "s"}
    return batch_plan([30] * count, [2] * count, **(settings | changes))


def test_the_last_partial_batch_is_kept_and_counts_its_own_responses() -> None:
    steps = plan(10)
    assert [step.responses for step in steps] == [8, 8, 4]
    assert [len(step.micro_batches) for step in steps] == [2, 2, 1]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 3))
def test_every_epoch_visits_every_prompt_once(count: int, batch_size: int, epochs: int) -> None:
    steps = plan(count, batch_size=batch_size, epochs=epochs)
    visited = [index for step in steps for batch in step.micro_batches for index in batch]
    for epoch in range(epochs):
        assert sorted(visited[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    assert plan(20) == plan(20)
    assert plan(20) != plan(20, seed="other")
    first, second = plan(20, epochs=2)[:5], plan(20, epochs=2)[5:]
    assert first == plan(20)
    assert first != second


def test_micro_batches_respect_the_budget_but_for_a_single_large_prompt() -> None:
    assert micro_batches([0, 1, 2, 3], [60, 50, 500, 10], 100) == [(0,), (1,), (2,), (3,)]
    assert micro_batches([0, 1, 2], [60, 40, 10], 100) == [(0, 1), (2,)]


def test_learning_rate_rises_then_falls_and_no_step_is_wasted() -> None:
    rates = [learning_rate(step, steps=10, peak=1.0, warmup=0.2) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    assert learning_rate(0, steps=1, peak=1.0, warmup=0.0) == 1.0
    assert learning_rate(3, steps=4, peak=1.0, warmup=1.0) == 1.0
