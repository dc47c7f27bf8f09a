"""The transformers engine against exact distributions and plain forward passes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sampling_oracle import (
    EOS_IDS,
    PROMPTS,
    SETTINGS,
    VOCABULARY,
    Oracle,
    filtered,
    p_value,
    sampling_with,
    save_model,
    seeds,
    shape,
)
from sppo_trainer.engines import (
    BELOW_ONE,
    BLOCK,
    NonFiniteLogitsError,
    Sample,
    TransformersEngine,
    draw,
    eos_token_ids,
    filtered_weights,
    inverse_cdf,
)
from sppo_trainer.vllm_engine import EngineUnavailableError, VLLMEngine
from transformers import AutoModelForCausalLM, Gemma2Config, GenerationConfig, GPT2Config, LlamaConfig, MistralConfig

FAMILIES = {
    "llama": lambda: LlamaConfig(**shape()),
    "gpt2 with absolute positions": lambda: GPT2Config(**shape(n_positions=64)),
    "mistral with a window": lambda: MistralConfig(**shape(sliding_window=4)),
    "gemma2": lambda: Gemma2Config(
        **shape(head_dim=32, sliding_window=4, attn_logit_softcapping=0.5, final_logit_softcapping=2.0)
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(folder, dtype=torch.float32, device="cpu")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Oracle:
    return Oracle(folder)


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_responses_follow_the_exact_distribution(
    engine: TransformersEngine, oracle: Oracle, changes: dict[str, Any]
) -> None:
    sampling = sampling_with(samples=2000, **changes)
    answers = engine.sample(PROMPTS, seeds(len(PROMPTS), 2000), sampling)
    for prompt, samples in zip(PROMPTS, answers, strict=True):
        assert p_value(samples, oracle.responses(prompt, sampling)) > 1e-3


def test_the_chi_square_test_sees_a_wrong_temperature(engine: TransformersEngine, oracle: Oracle) -> None:
    samples = engine.sample(PROMPTS[:1], seeds(1, 2000), sampling_with(samples=2000, temperature=0.9))[0]
    assert p_value(samples, oracle.responses(PROMPTS[0], sampling_with())) < 1e-3


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
def test_cache_and_padding_agree_with_plain_forward_passes(config: Any, tmp_path: Path) -> None:
    engine = TransformersEngine(save_model(tmp_path, config()), dtype=torch.float32, device="cpu")
    oracle = Oracle(tmp_path)
    warm = engine.sample(PROMPTS, seeds(3, 6), sampling_with(samples=6, max_tokens=12, temperature=0.8, top_p=0.9))
    for prompt, samples in zip(PROMPTS, warm, strict=True):
        for sample in samples:
            np.testing.assert_allclose(sample.logprobs, oracle.logprobs(prompt, sample.token_ids), atol=1e-5)
    cold = engine.sample(PROMPTS, seeds(3, 1), sampling_with(samples=1, max_tokens=12, temperature=1e-4, eos_ids=()))
    for prompt, [sample] in zip(PROMPTS, cold, strict=True):
        assert sample.token_ids == oracle.greedy(prompt, 12)


def test_any_eos_ends_a_response_and_is_kept_once(engine: TransformersEngine) -> None:
    samples = engine.sample(PROMPTS[:1], seeds(1, 300), sampling_with(samples=300, max_tokens=4))[0]
    for sample in samples:
        assert not set(sample.token_ids[:-1]) & set(EOS_IDS)
        assert len(sample.logprobs) == len(sample.token_ids) <= 4
        stopped = sample.token_ids[-1] in EOS_IDS
        assert sample.finish_reason == ("stop" if stopped else "length")
        assert stopped or len(sample.token_ids) == 4
    assert {(len(s.token_ids), s.token_ids[-1]) for s in samples if s.finish_reason == "stop"} >= {
        (length, eos) for length in (1, 2, 3, 4) for eos in EOS_IDS
    }


def test_a_call_depends_on_nothing_but_its_arguments(engine: TransformersEngine) -> None:
    sampling = sampling_with(max_tokens=8)
    first = engine.sample(PROMPTS, seeds(3, 4), sampling)
    other = engine.sample(PROMPTS[::-1], seeds(3, 4, start=1), replace(sampling, top_k=2))
    assert engine.sample(PROMPTS, seeds(3, 4), sampling) == first != other


def test_a_sample_follows_its_seed_whatever_the_batch(engine: TransformersEngine) -> None:
    sampling = sampling_with(max_tokens=8)
    together = engine.sample(PROMPTS, seeds(3, 4), sampling)
    for b, prompt in enumerate(PROMPTS):
        [alone] = engine.sample([prompt], [seeds(3, 4)[b]], sampling)
        assert [s.token_ids for s in alone] == [s.token_ids for s in together[b]]
    [twins] = engine.sample(PROMPTS[:1], [[7, 7, 7, 8]], sampling)
    assert len({s.token_ids for s in twins[:3]}) == 1
    assert twins[3].token_ids != twins[0].token_ids


def test_a_higher_limit_only_extends_the_responses(engine: TransformersEngine) -> None:
    short = engine.sample(PROMPTS, seeds(3, 4), sampling_with(max_tokens=3))
    long = engine.sample(PROMPTS, seeds(3, 4), sampling_with(max_tokens=9))
    assert [[s.token_ids[:3] for s in row] for row in long] == [[s.token_ids for s in row] for row in short]


def test_no_prompts_give_no_samples(engine: TransformersEngine) -> None:
    assert engine.sample([], [], sampling_with()) == []


def test_a_model_that_overflows_is_refused(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(save_model(tmp_path))
    model.lm_head.weight.data[5, 0] = torch.nan
    model.save_pretrained(tmp_path)
    engine = TransformersEngine(tmp_path, dtype=torch.float32, device="cpu")
    with pytest.raises(NonFiniteLogitsError, match=r"logits are NaN or infinite.*sample from"):
        engine.sample(PROMPTS, seeds(3, 4), sampling_with())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf], ids=["nan", "+inf"])
def test_draw_refuses_logits_that_are_not_finite(bad: float) -> None:
    logits_RV = torch.zeros(2, 5)
    logits_RV[1, 3] = bad
    with pytest.raises(NonFiniteLogitsError):
        draw(logits_RV, torch.rand(2, dtype=torch.float64), sampling_with())


def test_draw_never_takes_a_token_of_probability_0() -> None:
    logits_RV = torch.full((3, 700), -torch.inf)
    logits_RV[:, [0, 300, 555]] = torch.tensor([[0.0, 0.0, 0.0]])
    tokens_R, logprobs_R = draw(logits_RV, torch.tensor([0.0, 0.5, BELOW_ONE], dtype=torch.float64), sampling_with())
    assert tokens_R.tolist() == [0, 300, 555]
    torch.testing.assert_close(logprobs_R, torch.full((3,), -np.log(3), dtype=torch.float32))


@pytest.mark.parametrize(
    ("weights", "u", "token"),
    [
        pytest.param([1, 2, 1], 0.0, 0, id="start"),
        pytest.param([1, 2, 1], 0.24, 0, id="inside the first"),
        pytest.param([1, 2, 1], 0.25, 1, id="a bound belongs to the next"),
        pytest.param([1, 2, 1], BELOW_ONE, 2, id="end"),
        pytest.param([0, 2, 0], 0.0, 1, id="leading 0"),
        pytest.param([0, 2, 0], BELOW_ONE, 1, id="trailing 0"),
        pytest.param([1] + [0] * (2 * BLOCK) + [1], 0.5, 2 * BLOCK + 1, id="an empty block"),
        pytest.param([1] * BLOCK + [0], BELOW_ONE, BLOCK - 1, id="padding of the last block"),
        pytest.param([1] + [0] * BLOCK + [1.5 * 2**-53], BELOW_ONE, BLOCK + 1, id="u rounded to before its block"),
        pytest.param([1.0] + [1e-30] * BLOCK, BELOW_ONE, 0, id="a tail too small to be seen"),
    ],
)
def test_inverse_cdf_by_hand(weights: list[float], u: float, token: int) -> None:
    tokens_R = inverse_cdf(torch.tensor([weights], dtype=torch.float32), torch.tensor([u], dtype=torch.float64))
    assert tokens_R.tolist() == [token]


weights_lists = st.lists(st.one_of(st.just(0.0), st.floats(2**-60, 1, width=32)), min_size=1, max_size=600)


@given(weights_lists.filter(any), st.floats(0, BELOW_ONE))
def test_inverse_cdf_finds_the_token_whose_share_holds_u(weights: list[float], u: float) -> None:
    weights_V = torch.tensor(weights, dtype=torch.float32)
    [token] = inverse_cdf(weights_V[None], torch.tensor([u], dtype=torch.float64)).tolist()
    shares_V = weights_V.double().cumsum(0) / weights_V.double().sum()
    assert weights_V[token] > 0
    assert shares_V[token] >= u - 1e-6
    assert token == 0 or shares_V[token - 1] <= u + 1e-6


@given(
    st.lists(st.integers(-40, 40), min_size=3, max_size=30, unique=True),
    st.sampled_from([0.3, 1.0, 2.5]),
    st.integers(0, 40),
    st.sampled_from([0.05, 0.33, 0.77, 0.97, 1.0]),
)
def test_filters_agree_with_one_token_at_a_time(
    logits: list[int], temperature: float, top_k: int, top_p: float
) -> None:
    sampling = sampling_with(temperature=temperature, top_k=top_k, top_p=top_p)
    logits_V = np.array(logits) / 8
    weights_RV = filtered_weights(torch.tensor(logits_V[None], dtype=torch.float32).log_softmax(-1), sampling)
    np.testing.assert_allclose((weights_RV / weights_RV.sum())[0], filtered(logits_V, sampling), atol=2e-6)


@pytest.mark.parametrize("changes", [{"top_k": 1}, {"top_p": 0.2}], ids=["top-k", "top-p"])
def test_tokens_that_tie_are_kept_together(changes: dict[str, Any]) -> None:
    logprobs_RV = torch.tensor([[1.0, 2.0, 2.0, 0.0]]).log_softmax(-1)
    assert (filtered_weights(logprobs_RV, sampling_with(**changes)) > 0).tolist() == [[False, True, True, False]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 0}, "samples is 0: it must be at least 1"),
        ({"temperature": 0.0}, "temperature is 0.0: it must be above 0"),
        ({"temperature": float("nan")}, "temperature is nan: it must be above 0"),
        ({"top_p": 0.0}, "top_p is 0.0: it must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p is 1.1: it must be above 0 and at most 1"),
        ({"top_k": -1}, "top_k is -1: it must be at least 0"),
        ({"max_tokens": 0}, "max_tokens is 0: it must be at least 1"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        sampling_with(**changes)


@pytest.mark.parametrize(
    ("prompts", "rows", "message"),
    [
        pytest.param([[4], []], [[1, 2], [3, 4]], r"prompts\[1\] is empty", id="empty prompt"),
        pytest.param([[4]], [[1, 2], [3, 4]], "seeds has 2 rows for 1 prompts", id="rows"),
        pytest.param([[4]], [[1]], r"seeds\[0\] has 1 seeds", id="seeds in a row"),
        pytest.param([[4]], [[1, -1]], r"seeds\[0\] is \[1, -1\]: seeds are unsigned", id="negative seed"),
        pytest.param([[4]], [[1, 2**64]], "seeds are unsigned 64-bit", id="long seed"),
    ],
)
def test_impossible_requests_are_refused(
    engine: TransformersEngine, prompts: list[list[int]], rows: list[list[int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        engine.sample(prompts, rows, sampling_with(samples=2))


class TokenizerWithEos:
    def __init__(self, eos_token_id: int | None) -> None:
        self.eos_token_id = eos_token_id


@pytest.mark.parametrize(
    ("config", "generation", "tokenizer", "expected"),
    [
        pytest.param(2, 2, 2, (2,), id="all the same"),
        pytest.param(7, [9, 8], 8, (7, 8, 9), id="as in Llama 3: a list in generation_config"),
        pytest.param([7, 5], None, None, (5, 7), id="only the config"),
        pytest.param(None, None, 6, (6,), id="only the tokenizer"),
        pytest.param(None, None, None, (), id="none"),
    ],
)
def test_eos_ids_are_the_union_of_all_sources(
    config: Any, generation: Any, tokenizer: int | None, expected: tuple[int, ...], tmp_path: Path
) -> None:
    LlamaConfig(**shape(eos_token_id=config)).save_pretrained(tmp_path)
    if generation is not None:
        GenerationConfig(eos_token_id=generation).save_pretrained(tmp_path)
    assert eos_token_ids(tmp_path, TokenizerWithEos(tokenizer)) == expected


def test_missing_vllm_names_the_remedy_and_leaves_no_trace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    before = dict(os.environ)
    with pytest.raises(
        EngineUnavailableError, match=r"vLLM needs the vllm package.*set generation\.engine: Transformers"
    ):
        VLLMEngine(folder, dtype=torch.float32, max_model_len=64)
    assert dict(os.environ) == before


def test_samples_are_plain_numbers(engine: TransformersEngine) -> None:
    [[sample]] = engine.sample([[4]], [[1]], sampling_with(samples=1))
    assert isinstance(sample, Sample)
    assert all(type(token) is int and 0 <= token < VOCABULARY for token in sample.token_ids)
    assert all(type(logprob) is float and logprob <= 0 for logprob in sample.logprobs)
