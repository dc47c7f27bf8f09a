"""Preference oracles: which one a run uses, which pairs it is asked, and P from what it answers.

Shapes as in `oracle`: K responses of one prompt; entry (i, j) of a KK table compares response i with response j.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import torch

from sppo_trainer.config import Preference
from sppo_trainer.judge import JudgeOracle
from sppo_trainer.objective import pairwise_probabilities
from sppo_trainer.oracle import Comparison, Floats, Judgement, Oracle, Pair, Response, Scale
from sppo_trainer.verifier import VerifierOracle

__all__ = [
    "Comparison",
    "Judgement",
    "Oracle",
    "Response",
    "all_pairs",
    "cross_pairs",
    "load_oracle",
    "probabilities",
]


KEY_VARIABLES = {"preference": "SPPO_JUDGE_KEY", "evaluation.preference": "SPPO_EVALUATION_JUDGE_KEY"}
"""Each judge has a key of its own, and none is shown another's."""


def load_oracle(preference: Preference, *, model_dir: Path | None = None, field: str = "preference") -> Oracle:
    """The oracle of a run; raises UserError for rules or model files that cannot work.

    `model_dir` is the local folder of `preference.model`, which PairRM and RewardModel need.
    `field` is what messages call the section, such as "evaluation.preference".
    """
    if preference.verifier:
        return VerifierOracle(preference.verifier, field=field)
    if preference.judge:
        return JudgeOracle(preference.judge, key=os.environ.get(KEY_VARIABLES[field]), field=field)
    if model_dir is None:
        raise ValueError(f"preference kind {preference.kind} needs model_dir")
    # Imported here: a Verifier or a Judge need not wait for transformers.
    if preference.pair_rm:
        from sppo_trainer.pairrm import PairRMOracle

        return PairRMOracle(preference.pair_rm, model_dir, field=field)
    if preference.reward_model:
        from sppo_trainer.reward_model import RewardModelOracle

        return RewardModelOracle(preference.reward_model, model_dir, field=field)
    raise ValueError(f"preference kind {preference.kind} has no section")


def all_pairs(count: int) -> tuple[Pair, ...]:
    """All ordered pairs of `count` responses: each two are compared both ways round."""
    return tuple(itertools.permutations(range(count), 2))


def cross_pairs(left: int, right: int) -> tuple[Pair, ...]:
    """Both orders of each of responses 0..left-1 with each of the following `right` ones, none within a side."""
    return tuple(pair for i in range(left) for j in range(left, left + right) for pair in ((i, j), (j, i)))


def probabilities(judgement: Judgement, scale: Scale, temperature: float = 1.0) -> Floats:
    """P_ij = P(y_i > y_j | x), (K, K): P_ij + P_ji = 1, the diagonal is 1/2, NaN where not asked both ways.

    Logit        sigmoid((L_ij - L_ji) / 2 / temperature)
    Probability  (v_ij + 1 - v_ji) / 2; the temperature plays no part
    """
    values_KK = judgement.values_KK
    if scale == "Logit":
        result: Floats = pairwise_probabilities(torch.from_numpy(values_KK), temperature).numpy()
        return result
    probabilities_KK = (values_KK + 1 - values_KK.T) / 2
    np.fill_diagonal(probabilities_KK, 0.5)
    return probabilities_KK
