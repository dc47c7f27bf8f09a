"""The vLLM engine, held to the same distribution as the transformers engine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sampling_oracle import EOS_IDS, PROMPTS, SETTINGS, Oracle, p_value, sampling_with, save_model, seeds
from sppo_trainer.engines import NonFiniteLogitsError
from sppo_trainer.vllm_engine import MIN_BATCHED_TOKENS, VLLMEngine
from transformers import AutoModelForCausalLM

pytest.importorskip("vllm", reason="vLLM is not installed: install the trainer's vllm extra to test this engine")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[VLLMEngine]:
    engine = VLLMEngine(folder, dtype=torch.float32, max_model_len=64)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Oracle:
    return Oracle(folder)


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_responses_follow_the_exact_distribution(engine: VLLMEngine, oracle: Oracle, changes: dict[str, Any]) -> None:
    sampling = sampling_with(samples=800, **changes)
    answers = engine.sample(PROMPTS, seeds(len(PROMPTS), 800), sampling)
    for prompt, samples in zip(PROMPTS, answers, strict=True):
        assert p_value(samples, oracle.responses(prompt, sampling)) > 1e-3


def test_raw_logprobs_agree_with_transformers(engine: VLLMEngine, oracle: Oracle) -> None:
    sampling = sampling_with(max_tokens=12, temperature=0.7, top_k=8)
    for prompt, samples in zip(PROMPTS, engine.sample(PROMPTS, seeds(3, 4), sampling), strict=True):
        for sample in samples:
            np.testing.assert_allclose(sample.logprobs, oracle.logprobs(prompt, sample.token_ids), atol=1e-3)


def test_any_eos_ends_a_response_and_is_kept_once(engine: VLLMEngine) -> None:
    samples = engine.sample(PROMPTS[:1], seeds(1, 200), sampling_with(samples=200, max_tokens=3))[0]
    for sample in samples:
        assert not set(sample.token_ids[:-1]) & set(EOS_IDS)
        stopped = sample.token_ids[-1] in EOS_IDS
        assert sample.finish_reason == ("stop" if stopped else "length")
        assert stopped or len(sample.token_ids) == 3
    assert {s.token_ids[-1] for s in samples if s.finish_reason == "stop"} == set(EOS_IDS)


def test_a_call_depends_on_nothing_but_its_arguments(engine: VLLMEngine) -> None:
    sampling = sampling_with(max_tokens=8)
    first = engine.sample(PROMPTS, seeds(3, 4), sampling)
    other = engine.sample(PROMPTS[::-1], seeds(3, 4, start=1), sampling)
    assert engine.sample(PROMPTS, seeds(3, 4), sampling) == first != other
    [twins] = engine.sample(PROMPTS[:1], [[2**64 - 1, 2**64 - 1, 7, 8]], sampling)
    assert twins[0].token_ids == twins[1].token_ids


def test_prompts_beyond_one_batch_keep_their_seeds(engine: VLLMEngine) -> None:
    """Without the engine's settings vLLM would cut a prompt in two and fail on a CPU generator."""
    prompts = [[4 + (b * t) % 8 for t in range(1, 51)] for b in range(1, 50)]
    assert sum(map(len, prompts)) * 4 > MIN_BATCHED_TOKENS
    rows = seeds(len(prompts), 4)
    assert engine.sample(prompts, rows, sampling_with()) == engine.sample(prompts, rows, sampling_with())


def test_a_prompt_without_room_for_its_response_is_refused(engine: VLLMEngine) -> None:
    with pytest.raises(ValueError, match=r"prompts\[0\] has 60 tokens: with max_tokens 5 it exceeds max_model_len 64"):
        engine.sample([[4] * 60], seeds(1, 4), sampling_with(max_tokens=5))


def test_close_frees_the_process_for_the_next_engine(engine: VLLMEngine, tmp_path: Path) -> None:
    """Last, because it uses up the shared engine's process state; also: a model that overflows is refused."""
    model = AutoModelForCausalLM.from_pretrained(save_model(tmp_path))
    model.lm_head.weight.data[5, 0] = math.nan
    model.save_pretrained(tmp_path)
    engine.close()
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in os.environ
    second = VLLMEngine(tmp_path, dtype=torch.float32, max_model_len=64)
    with pytest.raises(NonFiniteLogitsError):
        second.sample(PROMPTS, seeds(3, 4), sampling_with())
    second.close()
