"""Which responses are trained, towards which targets, and in which batches: pure functions of scores and seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sppo_trainer import objective
from sppo_trainer.config import Objective


@dataclass(frozen=True, kw_only=True)
class Target:
    """One response to train."""

    k: int
    role: str
    """best | worst | other"""
    win_rate: float
    target: float
    """nats"""


def select(win_rates: Sequence[float], config: Objective) -> list[Target]:
    """The trained responses of one prompt in order of k; none if all are tied, for a tie carries no signal."""
    win_rates_K = torch.tensor(win_rates, dtype=torch.float64)
    if bool(objective.all_tied(win_rates_K)):
        return []
    best, worst = (int(index) for index in objective.best_and_worst(win_rates_K))
    targets = objective.targets(win_rates_K, eta=config.eta, kind=config.normalizer, constant=config.constant).tolist()
    if config.target == "Hard":
        targets[best], targets[worst] = objective.hard_targets(eta=config.eta)
    roles = {best: "best", worst: "worst"}
    trained = range(len(win_rates)) if config.responses == "All" else sorted(roles)
    return [Target(k=k, role=roles.get(k, "other"), win_rate=win_rates[k], target=targets[k]) for k in trained]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimizer step: micro-batches of prompt indices, and all their responses R together."""

    micro_batches: tuple[tuple[int, ...], ...]
    responses: int


def batch_plan(
    tokens: Sequence[int],
    responses: Sequence[int],
    *,
    batch_size: int,
    epochs: int,
    tokens_per_micro_batch: int,
    seed: str,
) -> list[Step]:
    """Every epoch visits all prompts once, in an order of its own; the last, smaller batch of an epoch is kept.

    `tokens` and `responses` are counts per prompt; a prompt with more tokens than a micro-batch gets one to itself.
    """
    steps = []
    for epoch in range(epochs):
        order = list(range(len(tokens)))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            steps.append(
                Step(
                    micro_batches=tuple(micro_batches(batch, tokens, tokens_per_micro_batch)),
                    responses=sum(responses[index] for index in batch),
                )
            )
    return steps


def learning_rate(step: int, *, steps: int, peak: float, warmup: float) -> float:
    """Of step 0, 1, …: linear from peak/W to peak over the W = ceil(warmup * steps) first, then linear towards 0."""
    warmup_steps = -int(-warmup * steps // 1)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * (steps - step) / (steps - warmup_steps)


def micro_batches(batch: Sequence[int], tokens: Sequence[int], budget: int) -> list[tuple[int, ...]]:
    """`batch` cut into runs of at most `budget` tokens, or of one prompt that has more."""
    batches: list[list[int]] = []
    used = budget
    for index in batch:
        if used + tokens[index] > budget:
            batches.append([])
            used = 0
        batches[-1].append(index)
        used += tokens[index]
    return [tuple(micro_batch) for micro_batch in batches]
