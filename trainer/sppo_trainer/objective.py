"""The objective of Self-Play Preference Optimization (SPPO), and nothing else.

Wu et al. 2024, "Self-Play Preference Optimization for Language Model Alignment", arXiv:2405.00675 (v5).
Equation numbers below are of that paper. Everything here is a pure function of tensors.

Shapes: K = responses to one prompt, R = trained responses, ... = any leading dimensions (usually prompts).
Ranges: probabilities and win rates in [0, 1]; log-probabilities, log-ratios and targets in nats.
eta = 1 / beta > 0 is the step size of the multiplicative-weights update, in nats per unit of win rate.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Normalizer = Literal["Half", "Estimated", "Constant"]


def pairwise_probabilities(logits_KK: Tensor, temperature: float) -> Tensor:
    """P_ij, the probability that response i is preferred to j: sigmoid(s_ij / temperature).

    `logits_KK` (..., K, K) holds L_ij, the oracle's logit for "i (shown first) beats j"; its diagonal is ignored.
    s_ij = (L_ij - L_ji) / 2 removes the oracle's bias for a position, so P_ij + P_ji = 1 and P_ii = 1/2.
    P_ij depends on no third response, unlike the reference code (uclaml/SPPO issue 15).
    """
    scores_KK = (logits_KK - logits_KK.transpose(-1, -2)) / 2
    probabilities_KK = torch.sigmoid(scores_KK / temperature)
    diagonal_KK = torch.eye(logits_KK.shape[-1], dtype=torch.bool, device=logits_KK.device)
    return torch.where(diagonal_KK, 0.5, probabilities_KK)


def win_rates(probabilities_KK: Tensor) -> Tensor:
    """w_i = P(y_i > pi_t | x) ~ (1/K) sum_k P(y_i > y_k | x), where itself counts 1/2.  (..., K, K) -> (..., K)."""
    return probabilities_KK.mean(dim=-1)


def log_normalizer(win_rates_K: Tensor, *, eta: float, kind: Normalizer, constant: float | None = None) -> Tensor:
    """log Z(x) of pi_{t+1} = pi_t exp(eta w) / Z, as a constant or an estimate.  (..., K) -> (...,).

    Half       eta / 2                        (4.6), what the paper trains with
    Estimated  log mean_k exp(eta w(y_k))     (4.5), with the K responses as the sample
    Constant   constant * eta, 1/2 <= constant <= 1; above 1/2 every target moves down
    """
    match kind:
        case "Half":
            return torch.full_like(win_rates_K[..., 0], eta / 2)
        case "Constant":
            if constant is None:
                raise ValueError("normalizer Constant needs `constant`: give a number from 0.5 to 1")
            return torch.full_like(win_rates_K[..., 0], constant * eta)
        case "Estimated":
            return torch.logsumexp(eta * win_rates_K, dim=-1) - math.log(win_rates_K.shape[-1])
    raise ValueError(f"normalizer {kind!r} is unknown: use Half, Estimated or Constant")


def targets(win_rates_K: Tensor, *, eta: float, kind: Normalizer, constant: float | None = None) -> Tensor:
    """t = eta w(y) - log Z(x), the log-ratio that each response is regressed onto (4.4).  (..., K) -> (..., K)."""
    return eta * win_rates_K - log_normalizer(win_rates_K, eta=eta, kind=kind, constant=constant).unsqueeze(-1)


def hard_targets(*, eta: float) -> tuple[float, float]:
    """(best, worst) = (+eta/2, -eta/2): the targets of a sure win and a sure loss under `Half` (4.12)."""
    return eta / 2, -eta / 2


def best_and_worst(win_rates_K: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the highest and the lowest win rate; the lowest index breaks ties.  (..., K) -> two of (...,).

    With all K equal both are 0: such a prompt carries no signal and is skipped by training (see `all_tied`).
    """
    is_best_K = win_rates_K == win_rates_K.amax(dim=-1, keepdim=True)
    is_worst_K = win_rates_K == win_rates_K.amin(dim=-1, keepdim=True)
    # argmax of a 0/1 tensor may return any of the maxima; cumsum == 1 marks the first one only.
    return _first_true(is_best_K), _first_true(is_worst_K)


def all_tied(win_rates_K: Tensor, tolerance: float = 1e-6) -> Tensor:
    """True where no response of the prompt is better than another.  (..., K) -> (...,)."""
    return win_rates_K.amax(dim=-1) - win_rates_K.amin(dim=-1) < tolerance


def sppo_loss(policy_logps: Tensor, reference_logps: Tensor, targets: Tensor) -> Tensor:
    """Mean over all responses of ( log pi_theta(y|x) - log pi_t(y|x) - t )^2  (4.7).

    All arguments (R,) or any equal shape: sums of token log-probabilities in nats, and targets.
    At theta = theta_t its gradient is -(2/R) sum_r t_r grad log pi(y_r|x_r).
    uclaml/SPPO@5e61c4e trainer.py:876 (`sppo`) equals this with R = 2 responses per prompt;
    TRL's `sppo_hard` sums the two squares and is twice this with `hard_targets`.
    """
    log_ratios = policy_logps - reference_logps
    return (log_ratios - targets).square().mean()


def _first_true(mask_K: Tensor) -> Tensor:
    first_K = mask_K & (mask_K.cumsum(dim=-1) == 1)
    return first_K.to(torch.int64).argmax(dim=-1)
