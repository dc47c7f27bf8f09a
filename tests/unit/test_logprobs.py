"""Packed log-probabilities against the obvious computation: one ordinary transformers forward per response."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from sppo_trainer.attention import PackingUnsupportedError, packed_attention
from sppo_trainer.logprobs import Head, Method, choose_method, head_logprobs, sequence_logprobs, token_logprobs
from sppo_trainer.packing import PromptGroup, pack
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

VOCAB, EOS = 97, 2
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": EOS,
}
LLAMA_LIKE = SIZES | {"intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
WINDOW = 6  # shorter than every prompt with its response but one


@dataclass(frozen=True, kw_only=True)
class Case:
    config: Callable[[], PreTrainedConfig]
    method: Method = "packed"


def case(config: str, *, method: Method = "packed", **settings: object) -> Case:
    return Case(config=lambda: getattr(transformers, config)(**LLAMA_LIKE | settings), method=method)


GEMMA2 = {"head_dim": 8, "sliding_window": WINDOW, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
GRANITE = {"logits_scaling": 3.0, "embedding_multiplier": 2.0, "attention_multiplier": 0.3, "residual_multiplier": 0.5}
GPT_OSS = {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}
CASES = {
    "llama-untied": case("LlamaConfig", tie_word_embeddings=False),
    "llama-tied": case("LlamaConfig", tie_word_embeddings=True),
    "qwen2-attention-bias": case("Qwen2Config"),
    "gemma2-soft-caps-and-window": case("Gemma2Config", **GEMMA2),
    "mistral-window": case("MistralConfig", sliding_window=WINDOW),
    "cohere-logit-scale": case("CohereConfig", logit_scale=0.3),
    "granite-multipliers": case("GraniteConfig", **GRANITE),
    "phi-head-bias": case("PhiConfig"),
    "gpt-oss-attention-sinks": case("GptOssConfig", **GPT_OSS, method="plain"),
    "dynamic-rope": case("LlamaConfig", rope_parameters={"rope_type": "dynamic", "factor": 2.0}, method="plain"),
    "bloom-own-attention": Case(
        config=lambda: transformers.BloomConfig(**SIZES | {"n_head": 4, "n_layer": 2}), method="plain"
    ),
    "mamba-no-attention": Case(config=lambda: transformers.MambaConfig(**SIZES | {"state_size": 8}), method="plain"),
}


def build(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A model whose every parameter matters, biases and norms included; eager attention honours every option."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def llama(**settings: object) -> PreTrainedModel:
    return build(transformers.LlamaConfig(**LLAMA_LIKE | settings))


def tokens(length: int, seed: int) -> list[int]:
    return torch.randint(3, VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def group(prompt: int, *responses: int, seed: int = 0) -> PromptGroup:
    """A group of random tokens with these lengths."""
    return PromptGroup(
        prompt_ids=tokens(prompt, seed), response_ids=[tokens(n, seed + 1 + k) for k, n in enumerate(responses)]
    )


GROUPS = [
    group(9, 12, 1, 17, seed=10),
    PromptGroup(prompt_ids=tokens(1, 20), response_ids=[[*tokens(4, 21), EOS], tokens(5, 22)]),
    group(14, 3, 8, 8, 2, 21, 1, 5, 13, seed=30),
]


def oracle(model: nn.Module, groups: Sequence[PromptGroup]) -> list[Tensor]:
    logps = []
    for one in groups:
        for response in one.response_ids:
            logits = model(input_ids=torch.tensor([[*one.prompt_ids, *response]])).logits[0].float()
            predictions = logits.log_softmax(-1)[len(one.prompt_ids) - 1 : -1]
            logps.append(torch.stack([row[token] for row, token in zip(predictions, response, strict=True)]))
    return logps


def squared_loss(logps: Sequence[Tensor]) -> Tensor:
    """A loss with another slope for every response, as in SPPO."""
    return (sequence_logprobs(logps) + 20 * torch.arange(len(logps))).square().mean()


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-4) -> None:
    assert actual.keys() == expected.keys()
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        # A bias of all keys, say, has no gradient but rounding: measure it against the largest.
        error = (actual[name] - gradient).norm() / (gradient.norm() + 1e-3 * largest)
        assert error < tolerance, f"{name}: {error}"


def assert_matches_oracle(model: nn.Module, groups: Sequence[PromptGroup], method: Method) -> None:
    expected, actual = oracle(model, groups), token_logprobs(model, groups, method=method, chunk_tokens=7)
    assert [logps.dtype for logps in actual] == [torch.float32] * len(expected)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    expected_loss, actual_loss = squared_loss(expected), squared_loss(actual)
    torch.testing.assert_close(actual_loss, expected_loss, rtol=1e-4, atol=0)
    assert_same_gradients(gradients(model, actual_loss), gradients(model, expected_loss))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_chosen_method_gives_the_log_probabilities_and_gradients_of_plain_forwards(case: Case) -> None:
    model = build(case.config())
    assert choose_method(model, GROUPS) == case.method
    assert_matches_oracle(model, GROUPS, case.method)


@pytest.mark.parametrize("num_responses", range(1, 9))
def test_any_number_of_responses(num_responses: int) -> None:
    assert_matches_oracle(llama(), [group(5, *range(1, num_responses + 1))], "packed")


def test_sequence_logprob_is_the_sum_over_response_tokens() -> None:
    logps = [torch.tensor([-1.0, -0.5]), torch.tensor([-2.0])]
    assert sequence_logprobs(logps).tolist() == [-1.5, -2.0]


def test_row_layout() -> None:
    """| 5 6 | 7 8 9 | 10 | and | 11 | 12 13 |, worked by hand."""
    groups = [
        PromptGroup(prompt_ids=[5, 6], response_ids=[[7, 8, 9], [10]]),
        PromptGroup(prompt_ids=[11], response_ids=[[12, 13]]),
    ]
    packing = pack(groups, torch.device("cpu"))
    assert packing.input_ids_N.tolist() == [5, 6, 7, 8, 9, 10, 11, 12, 13]
    assert packing.position_ids_N.tolist() == [0, 1, 2, 3, 4, 2, 0, 1, 2]
    assert packing.targets_T.tolist() == [7, 8, 9, 10, 12, 13]
    assert packing.predictors_T.tolist() == [1, 2, 3, 1, 6, 7]
    assert packing.response_lengths == [3, 1, 2]


lengths = st.lists(st.integers(1, 12), min_size=1, max_size=4)
group_shapes = st.lists(st.tuples(st.integers(1, 12), lengths), min_size=2, max_size=4)


@pytest.fixture(scope="module")
def windowed_model() -> PreTrainedModel:
    return build(transformers.MistralConfig(**LLAMA_LIKE, sliding_window=WINDOW))


@settings(max_examples=25, deadline=None)
@given(shapes=group_shapes, data=st.data())
def test_a_group_is_independent_of_its_neighbours(
    windowed_model: PreTrainedModel, shapes: list[tuple[int, list[int]]], data: st.DataObject
) -> None:
    groups = [group(prompt, *responses, seed=100 * i) for i, (prompt, responses) in enumerate(shapes)]
    order = data.draw(st.permutations(range(len(groups))))
    with torch.no_grad():
        alone = [torch.cat(token_logprobs(windowed_model, [one], method="packed")) for one in groups]
        packed = torch.cat(token_logprobs(windowed_model, [groups[i] for i in order], method="packed"))
    torch.testing.assert_close(packed, torch.cat([alone[i] for i in order]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk_tokens", [1, 5, 10_000])
def test_chunk_size_changes_nothing(chunk_tokens: int) -> None:
    model = build(transformers.Gemma2Config(**LLAMA_LIKE | GEMMA2))
    expected = token_logprobs(model, GROUPS, method="packed", chunk_tokens=64)
    actual = token_logprobs(model, GROUPS, method="packed", chunk_tokens=chunk_tokens)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    assert_same_gradients(gradients(model, squared_loss(actual)), gradients(model, squared_loss(expected)), 1e-5)


class MostLogits(TorchDispatchMode):
    """Watches for the largest number of rows of vocabulary size."""

    rows = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # torch's signature
        output = func(*args, **kwargs or {})
        if isinstance(output, Tensor) and output.shape[-1:] == (VOCAB,):
            self.rows = max(self.rows, output.shape[:-1].numel())
        return output


def test_logits_are_never_held_for_more_than_a_chunk() -> None:
    chunk_tokens = 40  # more than the hidden size: the transposed head weight has vocabulary size, too
    with MostLogits() as most:
        logps = token_logprobs(llama(), GROUPS, method="packed", chunk_tokens=chunk_tokens)
        squared_loss(logps).backward()
    assert most.rows == chunk_tokens < sum(len(one) for one in logps)


@pytest.mark.parametrize("softcap", [None, 2.0], ids=["no-cap", "cap"])
@pytest.mark.parametrize("wants", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)], ids=["hidden", "weight", "bias", "all"])
def test_head_gives_gradients_to_those_who_want_them(wants: tuple[int, int, int], softcap: float | None) -> None:
    torch.manual_seed(0)
    hidden, weight, bias = inputs = torch.randn(5, 8), torch.randn(11, 8), torch.randn(11)
    for tensor, wanted in zip(inputs, wants, strict=True):
        tensor.requires_grad_(bool(wanted))
    targets, slopes = torch.tensor([3, 0, 10, 3, 7]), torch.randn(5)

    head = Head(weight_VE=weight, bias_V=bias, scale=0.5, softcap=softcap)
    (head_logprobs(hidden, head, targets, chunk_tokens=2) * slopes).sum().backward()
    actual = [tensor.grad for tensor in inputs]

    for tensor in inputs:
        tensor.grad = None
    logits = 0.5 * (hidden @ weight.T + bias)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    (logits.log_softmax(-1)[range(5), targets] * slopes).sum().backward()
    for gradient, tensor in zip(actual, inputs, strict=True):
        assert (gradient is None) == (tensor.grad is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, tensor.grad)


def test_bf16_autocast_with_float32_weights() -> None:
    """As near to the float32 numbers as plain forwards under autocast are."""
    model = llama(tie_word_embeddings=True)
    expected = oracle(model, GROUPS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain, packed = oracle(model, GROUPS), token_logprobs(model, GROUPS, method="packed")

    def error(logps: list[Tensor]) -> float:
        return (torch.cat(logps) - torch.cat(expected)).square().mean().sqrt().item()

    assert 0 < error(packed) < 1.5 * error(plain)
    expected_gradients, actual_gradients = (gradients(model, squared_loss(logps)) for logps in (expected, packed))
    assert {gradient.dtype for gradient in actual_gradients.values()} == {torch.float32}
    assert_same_gradients(actual_gradients, expected_gradients, 0.05)


def test_bf16_weights() -> None:
    model = llama().to(torch.bfloat16)
    assert choose_method(model, GROUPS) == "packed"
    squared_loss(token_logprobs(model, GROUPS, method="packed")).backward()
    assert {p.grad.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("modules", "method"), [(["q_proj", "down_proj"], "packed"), (["lm_head"], "plain")], ids=["layers", "head"]
)
def test_lora(modules: list[str], method: Method) -> None:
    model = get_peft_model(llama(), LoraConfig(r=2, target_modules=modules, lora_dropout=0.0)).eval()
    assert choose_method(model, GROUPS) == method  # of the fresh adapter, whose B = 0 hides it
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    assert_matches_oracle(model, GROUPS, method)


def test_reference_without_gradients_equals_training() -> None:
    model = llama()
    training = token_logprobs(model, GROUPS, method="packed")
    with torch.no_grad():
        reference = token_logprobs(model, GROUPS, method="packed")
    assert torch.equal(torch.cat(training), torch.cat(reference))
    assert training[0].requires_grad
    assert not reference[0].requires_grad


def test_activation_checkpointing_inside_packed_attention() -> None:
    model = llama().train()
    expected = gradients(model, squared_loss(token_logprobs(model, GROUPS, method="packed")))
    model.gradient_checkpointing_enable()
    with packed_attention(model):
        actual = gradients(model, squared_loss(token_logprobs(model, GROUPS, method="packed")))
    assert_same_gradients(actual, expected, 1e-6)


def test_activation_checkpointing_outside_packed_attention_fails_loudly() -> None:
    model = llama().train()
    model.gradient_checkpointing_enable()
    loss = squared_loss(token_logprobs(model, GROUPS, method="packed"))
    with pytest.raises(TypeError):
        loss.backward()


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
def test_attention_is_switched_back(fails: bool) -> None:
    model = llama(attention_dropout=0.5 if fails else 0.0).train()
    if fails:
        with pytest.raises(PackingUnsupportedError, match=r"attention dropout 0\.5: set it to 0"):
            token_logprobs(model, GROUPS, method="packed")
    else:
        token_logprobs(model, GROUPS, method="packed")
    assert model.config._attn_implementation == "eager"


def test_reason_for_the_plain_method_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        choose_method(build(CASES["gpt-oss-attention-sinks"].config()), GROUPS)
    assert "GptOssAttention asks packed attention for s_aux" in caplog.text


def mix_with_previous_token(layer: nn.Module, args: tuple[Tensor], kwargs: dict[str, Tensor]) -> tuple[object, object]:
    """A convolution that starts anew at position 0: it leaks between the responses of a prompt, and nowhere else."""
    (hidden,) = args
    return (hidden + hidden.roll(1, dims=1) * (kwargs["position_ids"] > 0)[..., None],), kwargs


@pytest.mark.parametrize("groups", [[group(1, 1)], [group(2, 1), group(3, 1, 1)]], ids=["one", "two"])
def test_leak_between_responses_is_noticed_from_any_data(groups: list[PromptGroup]) -> None:
    model = llama()
    model.model.layers[0].register_forward_pre_hook(mix_with_previous_token, with_kwargs=True)
    assert choose_method(model, groups) == "plain"


@pytest.mark.parametrize("groups", [[group(1, 1)], [group(2, 1), group(1, 1)]], ids=["one", "two"])
def test_leak_between_groups_is_noticed_from_any_data(groups: list[PromptGroup]) -> None:
    hybrid = transformers.Lfm2Config(**LLAMA_LIKE, layer_types=["conv", "full_attention"])
    assert choose_method(build(hybrid), groups) == "plain"


@pytest.mark.parametrize(
    ("prompt_ids", "response_ids", "message"),
    [
        ([], [[1]], "prompt_ids is empty"),
        ([1], [], r"response_ids has lengths \[\]"),
        ([1], [[1, 2], []], r"response_ids has lengths \[2, 0\]"),
    ],
    ids=["no-prompt", "no-responses", "empty-response"],
)
def test_empty_sequences_are_refused(prompt_ids: list[int], response_ids: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PromptGroup(prompt_ids=prompt_ids, response_ids=response_ids)
