"""What any sampling engine must reproduce: the exact distribution of short responses, by plain forward passes.

Slow and obvious on purpose: no cache, no padding, no batch, float64, Python loops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sppo_trainer.engines import Sample, Sampling
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig

VOCABULARY = 12
EOS_IDS = (2, 3)
PROMPTS = [[4], [5, 6, 7, 8, 9, 10], [1, 11, 4]]
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cool": {"temperature": 0.7},
    "top-k": {"top_k": 5},
    "top-p": {"top_p": 0.8},
    "all filters": {"temperature": 1.3, "top_k": 6, "top_p": 0.7},
}


def sampling_with(**changes: Any) -> Sampling:
    plain = {
        "samples": 4,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_tokens": 2,
        "eos_ids": EOS_IDS,
    }
    return Sampling(**(plain | changes))


def seeds(prompts: int, samples: int, start: int = 0) -> list[list[int]]:
    """Distinct 64-bit seeds from both halves of the range."""
    rng = np.random.default_rng(start)
    return [[int(seed) for seed in rng.integers(0, 2**64, samples, dtype=np.uint64)] for _ in range(prompts)]


def save_model(folder: Path, config: Any = None) -> Path:
    """A random model of 12 tokens, with a generation_config that would spoil every test if an engine read it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config or LlamaConfig(**shape(head_dim=32)))
    model.generation_config = GenerationConfig(do_sample=True, top_k=1, repetition_penalty=2.0, eos_token_id=[5])
    model.save_pretrained(folder)
    return folder


def shape(**changes: Any) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    } | changes


class Oracle:
    """The distribution of a model's responses, and the raw log-probabilities of a given one."""

    def __init__(self, folder: Path) -> None:
        # eager is the one attention that honours every model's soft-capping
        self.model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").double().eval()

    @torch.inference_mode()
    def logits(self, token_ids: Sequence[int]) -> np.ndarray:
        """Of the token after each of these, (T, V)."""
        return self.model(torch.tensor([token_ids]), use_cache=False).logits[0].numpy()

    def logprobs(self, prompt: Sequence[int], response: Sequence[int]) -> list[float]:
        logits = self.logits([*prompt, *response])[len(prompt) - 1 : -1]
        return [float(np.log(_softmax(row)[token])) for row, token in zip(logits, response, strict=True)]

    def greedy(self, prompt: Sequence[int], length: int) -> tuple[int, ...]:
        response: list[int] = []
        for _ in range(length):
            response.append(int(self.logits([*prompt, *response])[-1].argmax()))
        return tuple(response)

    def responses(self, prompt: Sequence[int], sampling: Sampling) -> dict[tuple[int, ...], float]:
        """The probability of every possible response."""
        return dict(self._responses(prompt, (), 1.0, sampling))

    def _responses(
        self, prompt: Sequence[int], so_far: tuple[int, ...], probability: float, sampling: Sampling
    ) -> Iterator[tuple[tuple[int, ...], float]]:
        if len(so_far) == sampling.max_tokens or (so_far and so_far[-1] in sampling.eos_ids):
            yield so_far, probability
            return
        for token, p in enumerate(filtered(self.logits([*prompt, *so_far])[-1], sampling)):
            if p > 0:
                yield from self._responses(prompt, (*so_far, token), probability * p, sampling)


def filtered(logits_V: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Temperature, top-k, top-p, one token at a time from the most probable down; for logits without ties."""
    probabilities_V = _softmax(logits_V / sampling.temperature)
    order = np.argsort(-probabilities_V)[: sampling.top_k or None]
    total = probabilities_V[order].sum()
    kept_V, mass = np.zeros_like(probabilities_V), 0.0
    for token in order:
        if mass / total >= sampling.top_p:
            break
        kept_V[token] = probabilities_V[token]
        mass += probabilities_V[token]
    return kept_V / mass


def p_value(samples: Sequence[Sample], distribution: dict[tuple[int, ...], float]) -> float:
    """Pearson's chi-square test; cells that expect fewer than 5 responses are pooled. 0 if one was impossible."""
    counts = Counter(sample.token_ids for sample in samples)
    if counts.keys() - distribution.keys():
        return 0.0
    expected = {response: p * len(samples) for response, p in distribution.items()}
    rare = [response for response, count in expected.items() if count < 5]
    cells = [(counts[response], expected[response]) for response in expected.keys() - set(rare)]
    if rare:
        cells.append((sum(counts[r] for r in rare), sum(expected[r] for r in rare)))
    if len(cells) == 1:
        return 1.0  # every response falls into the one cell: nothing left to doubt
    statistic = sum((seen - mean) ** 2 / mean for seen, mean in cells)
    degrees = torch.tensor((len(cells) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(degrees, torch.tensor(statistic / 2, dtype=torch.float64)))


def _softmax(logits_V: np.ndarray) -> np.ndarray:
    exponentials_V = np.exp(logits_V - logits_V.max())
    return exponentials_V / exponentials_V.sum()
