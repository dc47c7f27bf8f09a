"""Sampling engines: what every engine promises, and the engine on plain transformers.

Axes: B prompts, K samples per prompt, R rows still being sampled (R <= B K), T tokens, V vocabulary,
N blocks of W tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AutoConfig, DynamicCache, GenerationConfig

from sppo_trainer.errors import DivergedError
from sppo_trainer.models import load_policy

BLOCK = 256  # W: block sums of 256 tokens keep both searches of the inverse CDF short
BELOW_ONE = 1 - 2**-53  # the largest float64 under 1
SEED_LIMIT = 2**64

FinishReason = Literal["stop", "length"]


class NonFiniteLogitsError(DivergedError):
    """The model's logits hold NaN or infinity, so there is nothing to sample from."""

    def __init__(self) -> None:
        super().__init__(
            "the policy's logits are NaN or infinite: its weights overflowed in training or do not fit its dtype; "
            "sample from an earlier iterate or use precision Float32"
        )


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to sample. Only these settings count: a model's own generation_config is never read.

    Filters act in vLLM's order: temperature, then top-k, then top-p.
    """

    samples: int  # K
    temperature: float  # > 0
    top_p: float  # in (0, 1]; 1 is off
    top_k: int  # 0 is off
    max_tokens: int
    eos_ids: tuple[int, ...]  # any of these ends a response

    def __post_init__(self) -> None:
        bounds = {
            "samples": (self.samples >= 1, "at least 1"),
            "temperature": (0 < self.temperature < float("inf"), "above 0"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (self.top_k >= 0, "at least 0 (0 turns it off)"),
            "max_tokens": (self.max_tokens >= 1, "at least 1"),
        }
        for name, (holds, bound) in bounds.items():
            if not holds:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be {bound}")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One response."""

    token_ids: tuple[int, ...]  # an EOS that was sampled is the last token; nothing is ever appended
    logprobs: tuple[float, ...]  # of each token under the model itself: temperature 1, no filter
    finish_reason: FinishReason


class Engine(Protocol):
    """Samples one chunk of prompts per call; nothing is carried from one call to the next."""

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Sample]]:
        """Sample K responses to each prompt.

        Args:
            prompts: B lists of token ids, final: no BOS is added.
            seeds: B lists of K unsigned 64-bit integers, one for each response.

        Returns:
            B lists of K samples, in the order of `prompts` and `seeds`.

        Raises:
            ValueError: an empty prompt, or a number or range of seeds that does not fit.
            NonFiniteLogitsError: the model yields NaN or infinity.
        """
        ...

    def close(self) -> None:
        """Free the model's memory. The engine cannot be used afterwards; closing it again does nothing."""
        ...


def eos_token_ids(model_dir: Path, tokenizer: Any) -> tuple[int, ...]:
    """All EOS ids that the model's config, its generation config and its tokenizer name, sorted."""
    configs = [AutoConfig.from_pretrained(model_dir).get_text_config()]
    if (model_dir / "generation_config.json").exists():
        configs.append(GenerationConfig.from_pretrained(model_dir))
    named = [tokenizer.eos_token_id, *(config.eos_token_id for config in configs)]
    return tuple(sorted({i for ids in named if ids is not None for i in (ids if isinstance(ids, list) else [ids])}))


def finish_reason(token_ids: Sequence[int], eos_ids: Sequence[int]) -> FinishReason:
    """An EOS in the very last allowed place still counts as a stop."""
    return "stop" if token_ids[-1] in eos_ids else "length"


def check_request(prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling) -> None:
    """Refuse what no engine can answer.

    Raises:
        ValueError: an empty prompt, or a number or range of seeds that does not fit.
    """
    if len(seeds) != len(prompts):
        raise ValueError(f"seeds has {len(seeds)} rows for {len(prompts)} prompts: give one row for each prompt")
    for b, (prompt, row) in enumerate(zip(prompts, seeds, strict=True)):
        if not prompt:
            raise ValueError(f"prompts[{b}] is empty: a prompt needs at least one token")
        if len(row) != sampling.samples:
            raise ValueError(f"seeds[{b}] has {len(row)} seeds: give one for each of the {sampling.samples} samples")
        if not all(0 <= seed < SEED_LIMIT for seed in row):
            raise ValueError(f"seeds[{b}] is {list(row)}: seeds are unsigned 64-bit integers")


class TransformersEngine:
    """A decoding loop on a plain transformers model.

    A call's outcome depends on its arguments and the weights alone: bitwise, on one machine type with the
    same wheels and thread count. Each sample draws from its own seed, one number per token, so its companions
    in the batch reach it only through the rounding of the logits.
    """

    def __init__(self, model_dir: Path, *, dtype: torch.dtype, device: str) -> None:
        policy: Any = load_policy(model_dir, dtype=dtype)
        self._model = policy.to(device)
        self._device = device

    @torch.inference_mode()
    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Sample]]:
        """See `Engine.sample`."""
        check_request(prompts, seeds, sampling)
        if not prompts:
            return []
        uniforms_RT = _uniforms(seeds, sampling.max_tokens).to(self._device)
        eos_ids = torch.tensor(sampling.eos_ids, dtype=torch.long, device=self._device)
        steps: list[tuple[Tensor, Tensor, Tensor]] = []  # index among the B K rows, token, log-probability

        ids_BT, mask_BT = _left_padded(prompts, self._device)
        cache = DynamicCache(config=self._model.config)
        logits_BV = self._next_logits(ids_BT, mask_BT, cache)
        cache.batch_repeat_interleave(sampling.samples)
        logits_RV = logits_BV.repeat_interleave(sampling.samples, 0)
        mask_RT = mask_BT.repeat_interleave(sampling.samples, 0)

        live_R = torch.arange(len(logits_RV), device=self._device)
        for step in range(sampling.max_tokens):
            tokens_R, logprobs_R = draw(logits_RV, uniforms_RT[live_R, step], sampling)
            steps.append((live_R, tokens_R, logprobs_R))
            going = torch.isin(tokens_R, eos_ids, invert=True).nonzero().squeeze(1)
            if step + 1 == sampling.max_tokens or not len(going):
                break
            if len(going) < len(live_R):
                cache.batch_select_indices(going)
                live_R, tokens_R, mask_RT = live_R[going], tokens_R[going], mask_RT[going]
            mask_RT = pad(mask_RT, (0, 1), value=1)
            logits_RV = self._next_logits(tokens_R[:, None], mask_RT, cache)
        return _collect(steps, len(prompts), sampling)

    def close(self) -> None:
        """See `Engine.close`."""
        self._model = None

    def _next_logits(self, ids_RT: Tensor, mask_RT: Tensor, cache: DynamicCache) -> Tensor:
        """Feed new tokens; logits of the token after them, (R, V). The mask covers cached and new tokens."""
        positions_RT = (mask_RT.cumsum(-1) - 1).clamp(min=0)[:, -ids_RT.shape[1] :]
        output = self._model(
            ids_RT, attention_mask=mask_RT, position_ids=positions_RT, past_key_values=cache, logits_to_keep=1
        )
        logits_RV: Tensor = output.logits[:, -1]
        return logits_RV


def draw(logits_RV: Tensor, uniforms_R: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draw one token per row; the tokens and their raw log-probabilities, (R,) each.

    Raises:
        NonFiniteLogitsError: a logit is NaN or +infinity (-infinity is a probability of 0).
    """
    logprobs_RV = logits_RV.float().log_softmax(-1)
    if logprobs_RV[:, 0].isnan().any():  # log_softmax spreads one bad logit over its whole row
        raise NonFiniteLogitsError
    tokens_R = inverse_cdf(filtered_weights(logprobs_RV, sampling), uniforms_R)
    return tokens_R, logprobs_RV.gather(1, tokens_R[:, None]).squeeze(1)


def filtered_weights(logprobs_RV: Tensor, sampling: Sampling) -> Tensor:
    """Temperature, top-k, top-p: weights (R, V) proportional to the distribution that is sampled.

    Top-p keeps the most probable tokens until their mass reaches p (Holtzman et al. 2020, arXiv 1904.09751).
    Tokens that tie with the last one kept are kept too, so the outcome never depends on an order among equals.
    """
    scaled_RV = logprobs_RV / sampling.temperature
    if 0 < sampling.top_k < scaled_RV.shape[1]:
        kth_R1 = scaled_RV.topk(sampling.top_k).values[:, -1:]
        scaled_RV = scaled_RV.masked_fill(scaled_RV < kth_R1, -torch.inf)
    weights_RV = scaled_RV.softmax(-1)
    if sampling.top_p < 1:
        ascending_RV = _ascending(weights_RV)
        cut_R1 = (ascending_RV.cumsum(-1) <= 1 - sampling.top_p).sum(-1, keepdim=True)
        last_kept_R1 = ascending_RV.gather(1, cut_R1.clamp(max=weights_RV.shape[1] - 1))
        weights_RV = weights_RV.masked_fill(weights_RV < last_kept_R1, 0)
    return weights_RV


def inverse_cdf(weights_RV: Tensor, uniforms_R: Tensor) -> Tensor:
    """The first token of each row whose cumulative share of the weights exceeds u: (R,).

    First the block, then the token within it, in float64: one cheap pass over V, where a float32 cumulative sum
    would shift the tail and sampling by noise for every token costs ten times more. A weight of 0 is never chosen.
    """
    blocks_RNW = pad(weights_RV, (0, -weights_RV.shape[1] % BLOCK)).view(len(weights_RV), -1, BLOCK)
    block_R, rest_R = _search(blocks_RNW.sum(-1).double(), uniforms_R)
    block_RW = blocks_RNW[torch.arange(len(block_R), device=block_R.device), block_R]
    within_R, _ = _search(block_RW.double(), rest_R)
    return block_R * BLOCK + within_R


def _search(weights_RN: Tensor, uniforms_R: Tensor) -> tuple[Tensor, Tensor]:
    """The entry that u falls into, and where within that entry's share, in [0, 1)."""
    cdf_RN = weights_RN.cumsum(-1)
    target_R1 = uniforms_R[:, None] * cdf_RN[:, -1:]  # below the total: u is at most BELOW_ONE
    index_R1 = torch.searchsorted(cdf_RN, target_R1, right=True)
    weight_R1 = weights_RN.gather(1, index_R1)
    rest_R1 = (target_R1 - cdf_RN.gather(1, index_R1) + weight_R1) / weight_R1
    return index_R1.squeeze(1), rest_R1.squeeze(1).clamp(0, BELOW_ONE)


def _ascending(values_RV: Tensor) -> Tensor:
    """Sorted rows. On a CPU numpy's vectorized sort is 17 times faster than torch's, which carries the indices."""
    if values_RV.device.type == "cpu":
        return torch.from_numpy(np.sort(values_RV.numpy(), axis=-1))
    return values_RV.sort(-1).values


def _uniforms(seeds: Sequence[Sequence[int]], max_tokens: int) -> Tensor:
    """Numbers in [0, 1), (B K, T): those of a sample follow from its seed alone, and a longer T extends them."""
    streams = (np.random.Generator(np.random.Philox(key=seed)) for row in seeds for seed in row)
    return torch.from_numpy(np.stack([stream.random(max_tokens) for stream in streams]))


def _left_padded(prompts: Sequence[Sequence[int]], device: str) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, (B, T) each, so that all prompts end in the last column."""
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    ids_BT = torch.tensor([[0] * n + list(prompt) for n, prompt in zip(padding, prompts, strict=True)], device=device)
    mask_BT = torch.tensor([[0] * n + [1] * (longest - n) for n in padding], device=device)
    return ids_BT, mask_BT


def _collect(steps: list[tuple[Tensor, Tensor, Tensor]], prompts: int, sampling: Sampling) -> list[list[Sample]]:
    """Turn the steps' (row, token, log-probability) columns into samples, [prompt][k]."""
    tokens: list[list[int]] = [[] for _ in range(prompts * sampling.samples)]
    logprobs: list[list[float]] = [[] for _ in tokens]
    for columns in steps:
        for row, token, logprob in zip(*(column.tolist() for column in columns), strict=True):
            tokens[row].append(token)
            logprobs[row].append(logprob)
    samples = [
        Sample(token_ids=tuple(t), logprobs=tuple(lp), finish_reason=finish_reason(t, sampling.eos_ids))
        for t, lp in zip(tokens, logprobs, strict=True)
    ]
    return [samples[start : start + sampling.samples] for start in range(0, len(samples), sampling.samples)]
