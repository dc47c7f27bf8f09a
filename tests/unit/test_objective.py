"""The objective against hand-worked values, other implementations' numbers and the theory it comes from."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sppo_trainer.objective import (
    all_tied,
    best_and_worst,
    hard_targets,
    log_normalizer,
    pairwise_probabilities,
    sppo_loss,
    targets,
    win_rates,
)
from torch import Tensor

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden/golden.json").read_text("utf-8"))
BETAS = ["0.001", "0.01", "0.1", "1.0"]
ETAS = [1.0, 10.0, 1000.0]
STRICT_ORDER = {K: torch.tensor([(i + 0.5) / K for i in range(K)], dtype=torch.float64) for K in (2, 5, 10)}


def float64(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def close(actual: Tensor | float, expected: Any, tolerance: float = 1e-6) -> bool:
    return torch.allclose(
        torch.as_tensor(actual, dtype=torch.float64), float64(expected), rtol=tolerance, atol=tolerance
    )


@pytest.fixture
def golden_logps() -> tuple[Tensor, Tensor]:
    """(policy, reference), each (4 prompts, [chosen, rejected])."""
    inputs = GOLDEN["inputs"]
    policy = float64([inputs["pc"], inputs["pr"]]).T
    reference = float64([inputs["rc"], inputs["rr"]]).T
    return policy, reference


@pytest.mark.parametrize("beta", BETAS)
def test_loss_equals_uclaml_sppo(beta: str, golden_logps: tuple[Tensor, Tensor]) -> None:
    policy, reference = golden_logps
    policy.requires_grad_()
    rates = float64([GOLDEN["inputs"]["Pw"], GOLDEN["inputs"]["Pl"]]).T
    wanted = targets(rates, eta=1 / float(beta), kind="Half")
    expected = GOLDEN[f"beta={beta}"]
    per_prompt = [sppo_loss(policy[i], reference[i], wanted[i]).item() for i in range(4)]
    assert close(float64(per_prompt), expected["uclaml_sppo"])
    loss = sppo_loss(policy, reference, wanted)
    assert close(loss.item(), expected["uclaml_sppo_mean"])
    loss.backward()
    assert policy.grad is not None
    assert close(policy.grad[:, 0], expected["uclaml_sppo_dL/dpc"])
    assert close(policy.grad[:, 1], expected["uclaml_sppo_dL/dpr"])


@pytest.mark.parametrize("beta", BETAS)
def test_trl_sppo_hard_is_twice_our_hard_loss(beta: str, golden_logps: tuple[Tensor, Tensor]) -> None:
    policy, reference = golden_logps
    hard = float64(hard_targets(eta=1 / float(beta))).expand(4, 2)
    per_prompt = float64([sppo_loss(policy[i], reference[i], hard[i]).item() for i in range(4)])
    assert close(2 * per_prompt, GOLDEN[f"beta={beta}"]["trl0.9.6_sppo_hard"])


def test_probabilities_of_a_pair_are_the_antisymmetric_part_of_the_logits() -> None:
    table = pairwise_probabilities(float64(GOLDEN["pairrm"]["L"]), temperature=1.0)
    assert close(table, GOLDEN["pairrm"]["sigma((Lij-Lji)/2)"])
    twice = pairwise_probabilities(float64(GOLDEN["pairrm"]["L"]), temperature=0.5)
    assert close(twice, GOLDEN["pairrm"]["gpm_table_prob sigma(Lij-Lji)"])


logits = st.lists(st.floats(-20, 20), min_size=9, max_size=9).map(lambda values: float64(values).reshape(3, 3))


@given(logits, st.floats(0.1, 5))
def test_probabilities_are_complementary_and_independent_of_a_third(logits_KK: Tensor, temperature: float) -> None:
    table = pairwise_probabilities(logits_KK, temperature)
    assert close(table + table.T, torch.ones(3, 3))
    assert torch.equal(table.diagonal(), float64([0.5, 0.5, 0.5]))
    assert torch.equal(pairwise_probabilities(logits_KK[:2, :2], temperature), table[:2, :2])


def test_win_rate_counts_itself_as_a_half() -> None:
    assert close(win_rates(float64([[0.5, 1, 0.9], [0, 0.5, 0.2], [0.1, 0.8, 0.5]])), [0.8, 0.7 / 3, 1.4 / 3])


@pytest.mark.parametrize("K", [2, 5, 10])
@pytest.mark.parametrize("eta", ETAS)
def test_half_normalizer_is_half_of_eta(eta: float, K: int) -> None:
    assert close(log_normalizer(STRICT_ORDER[K], eta=eta, kind="Half"), eta / 2)
    assert close(targets(STRICT_ORDER[K], eta=eta, kind="Half"), [eta * ((i + 0.5) / K - 0.5) for i in range(K)])


@pytest.mark.parametrize("constant", [0.5, 0.75, 1.0])
@pytest.mark.parametrize("eta", ETAS)
def test_constant_normalizer_shifts_all_targets_down(eta: float, constant: float) -> None:
    half = targets(STRICT_ORDER[5], eta=eta, kind="Half")
    shifted = targets(STRICT_ORDER[5], eta=eta, kind="Constant", constant=constant)
    assert close(shifted, half - (constant - 0.5) * eta)


# log Z / eta of a strict order of K responses (research/method.md 1.2; computed there by other code).
@pytest.mark.parametrize(
    ("K", "eta", "ratio"),
    [(5, 1.0, 0.53966), (5, 10.0, 0.75359), (5, 1000.0, 0.89839), (2, 1000.0, 0.74931), (10, 1000.0, 0.9477)],
)
def test_estimated_normalizer_of_a_strict_order(K: int, eta: float, ratio: float) -> None:
    assert close(log_normalizer(STRICT_ORDER[K], eta=eta, kind="Estimated") / eta, ratio, 1e-4)


@pytest.mark.parametrize("K", [2, 5, 10])
@pytest.mark.parametrize("eta", ETAS)
def test_estimated_normalizer_equals_the_plain_sum(eta: float, K: int) -> None:
    rates = STRICT_ORDER[K].tolist()
    # Factor the largest term out by hand: exp(1000) is beyond float64.
    top = max(rates)
    expected = eta * top + math.log(sum(math.exp(eta * (rate - top)) for rate in rates) / K)
    assert close(log_normalizer(STRICT_ORDER[K], eta=eta, kind="Estimated"), expected)
    # Its targets are log-ratios of a distribution over the K samples: their exponentials average to 1.
    assert close(targets(STRICT_ORDER[K], eta=eta, kind="Estimated").exp().mean(), 1.0)


@given(logits)
def test_half_targets_of_all_responses_sum_to_zero(logits_KK: Tensor) -> None:
    rates = win_rates(pairwise_probabilities(logits_KK, 1.0))
    assert close(targets(rates, eta=20.0, kind="Half").sum(), 0.0)


@pytest.mark.parametrize(
    ("kind", "constant", "message"), [("Constant", None, "constant"), ("Third", None, "Half, Estimated or Constant")]
)
def test_a_normalizer_that_cannot_be_computed_is_refused(kind: Any, constant: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_normalizer(STRICT_ORDER[2], eta=1.0, kind=kind, constant=constant)


@pytest.mark.parametrize(
    ("rates", "best", "worst"),
    [
        ([0.1, 0.9, 0.5], 1, 0),
        ([0.9, 0.9, 0.1, 0.1], 0, 2),
        ([0.5, 0.5], 0, 0),
        ([0.2, 0.8, 0.2, 0.8, 0.2], 1, 0),
    ],
    ids=["plain", "lowest index breaks ties", "all tied", "ties of both"],
)
def test_best_and_worst(rates: list[float], best: int, worst: int) -> None:
    found = best_and_worst(float64([rates, rates]))
    assert [index.tolist() for index in found] == [[best, best], [worst, worst]]


@pytest.mark.parametrize(("rates", "tied"), [([0.5, 0.5, 0.5], True), ([0.5, 0.5 + 1e-7], True), ([0.5, 0.51], False)])
def test_all_tied(rates: list[float], tied: bool) -> None:
    assert bool(all_tied(float64(rates))) is tied


@pytest.mark.parametrize("K", [2, 5, 10])
@pytest.mark.parametrize("eta", ETAS)
def test_gradient_at_theta_t_is_that_of_a_policy_gradient(eta: float, K: int) -> None:
    """-(2/R) sum t grad log pi, for a softmax policy whose log-probabilities have known gradients."""
    torch.manual_seed(0)
    theta = torch.randn(K, dtype=torch.float64, requires_grad=True)
    logps = torch.log_softmax(theta, dim=0)
    wanted = targets(STRICT_ORDER[K], eta=eta, kind="Half")
    sppo_loss(logps, logps.detach(), wanted).backward()
    jacobian = torch.eye(K, dtype=torch.float64) - torch.softmax(theta.detach(), dim=0)
    assert theta.grad is not None
    assert close(theta.grad, -(2 / K) * wanted @ jacobian)


ROCK_PAPER_SCISSORS = float64([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]])


def multiplicative_weights(start: list[float], eta: float, steps: int) -> tuple[Tensor, Tensor]:
    """(time average, last iterate) of pi_{t+1} = pi_t exp(eta P(y > pi_t)) / Z with the exact log Z."""
    policy, total = float64(start), torch.zeros(3, dtype=torch.float64)
    for _ in range(steps):
        total += policy
        rates = ROCK_PAPER_SCISSORS @ policy
        policy = policy * torch.exp(eta * rates)
        policy = policy / policy.sum()
    return total / steps, policy


def test_on_rock_paper_scissors_the_average_converges_and_the_last_iterate_does_not() -> None:
    average, last = multiplicative_weights([0.6, 0.3, 0.1], eta=0.1, steps=4000)
    assert close(average, [0.3374, 0.3340, 0.3286], 1e-3)
    assert close(last, [0.876, 0.026, 0.099], 1e-2)


def test_one_exact_update_of_a_known_policy() -> None:
    policy, eta = float64([0.5, 0.3, 0.2]), 2.0
    rates = ROCK_PAPER_SCISSORS @ policy
    assert close(rates, [0.55, 0.35, 0.6])
    weights = policy * torch.exp(eta * rates)
    assert close(weights.sum().log() / eta, 0.50947, 1e-4)
    assert close(weights / weights.sum(), [0.54222, 0.21808, 0.23970], 1e-4)


def test_leading_dimensions_are_free() -> None:
    rates = torch.rand(2, 3, 5, dtype=torch.float64)
    whole = targets(rates, eta=10.0, kind="Estimated")
    for i, j in itertools.product(range(2), range(3)):
        assert close(whole[i, j], targets(rates[i, j], eta=10.0, kind="Estimated").tolist())
