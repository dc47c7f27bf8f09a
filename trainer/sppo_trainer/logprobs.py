"""Log-probabilities of responses under a causal language model, for training and for the frozen reference.

    log pi(y|x) = sum_t log pi(y_t | x, y_<t),    log pi(y_t | ...) = z_t[y_t] - log sum_v exp z_t[v]

over the response tokens only: the prompt with its chat header is masked, and nothing is appended (Wu et al. 2024,
arXiv 2405.00675, section 4). Two methods compute the same numbers: `packed` computes each prompt once, without padding
and without holding the logits of all tokens; `plain` is one ordinary forward per response, for all other models.

Shapes: R responses, T response tokens of all of them, C tokens of a chunk, E hidden size, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear
from transformers import PreTrainedModel

from sppo_trainer.attention import (
    PackingUnsupportedError,
    attention_implementation,
    packed_attention,
    packed_hidden_states,
)
from sppo_trainer.packing import PromptGroup, pack

logger = logging.getLogger(__name__)

Method = Literal["packed", "plain"]

_PROBE_TOKENS = 24  # per prompt and per response: enough for leaks between segments to show
_PROBE_TOLERANCE = 1e-3  # nats per token
_PROBE_TOLERANCE_HALF = 0.1  # the same for weights in 16 bits, whose rounding differs with the order of every sum


def token_logprobs(
    model: nn.Module, groups: Sequence[PromptGroup], *, method: Method, chunk_tokens: int = 1024
) -> list[Tensor]:
    """Log-probability of every response token; differentiable unless gradients are off.

    Args:
        model: a causal language model of transformers, or one wrapped by peft, with its dropout off.
        groups: prompts and responses. With `packed` they form one row, so their tokens bound the memory.
        method: what `choose_method` said for this model.
        chunk_tokens: logits held at once by `packed`, in tokens; changes memory, not results.

    Returns:
        One float32 tensor [response length] per response, in nats, in the order of the groups and their responses.

    Raises:
        PackingUnsupportedError: `packed` on a model that cannot be packed.
        TypeError: in backward, when activation checkpointing runs a layer again outside of `packed_attention`; open
            that around forward and backward.
    """
    causal_lm = _causal_lm(model)
    if method == "plain":
        return [_plain_logprobs(model, causal_lm.device, g.prompt_ids, r) for g in groups for r in g.response_ids]
    head = Head.of(causal_lm)
    packing = pack(groups, causal_lm.device)
    with packed_attention(causal_lm):
        hidden_TE = packed_hidden_states(causal_lm, packing)
    logps_T = head_logprobs(hidden_TE, head, packing.targets_T, chunk_tokens=chunk_tokens)
    return list(torch.split(logps_T, packing.response_lengths))


def sequence_logprobs(token_logps: Sequence[Tensor]) -> Tensor:
    """Sum over each response's tokens: float32 [R], in nats."""
    return torch.stack([logps.sum() for logps in token_logps])


def choose_method(model: nn.Module, groups: Sequence[PromptGroup]) -> Method:
    """`packed` if it gives this model's log-probabilities on a short probe cut from `groups`, else `plain`.

    The yardstick is one forward per response with the model's own eager attention, which honours everything that the
    architecture asks for. Call it with dropout off and, in a distributed job, with the same groups in all processes.
    """
    probe = _probe(groups)
    causal_lm = _causal_lm(model)
    with torch.no_grad(), torch.autocast(causal_lm.device.type, enabled=False):
        try:
            packed_T = torch.cat(token_logprobs(model, probe, method="packed"))
        # What foreign model code raises on a mask, positions or a head that it does not know.
        except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
            logger.warning(
                "%s: log-probabilities without packing, which is slower (%s)", type(causal_lm).__name__, error
            )
            return "plain"
        with attention_implementation(causal_lm, "eager"):
            plain_T = torch.cat(token_logprobs(model, probe, method="plain"))
    difference = (packed_T - plain_T).abs().max().item()
    if difference <= (_PROBE_TOLERANCE if causal_lm.dtype == torch.float32 else _PROBE_TOLERANCE_HALF):
        return "packed"
    logger.warning(
        "%s: log-probabilities without packing, which is slower (packed ones are off by up to %.3g nats per token)",
        type(causal_lm).__name__,
        difference,
    )
    return "plain"


def _probe(groups: Sequence[PromptGroup]) -> list[PromptGroup]:
    """Two groups of two responses, none of them a single token, whatever the data: a leak needs a neighbour."""
    return [
        PromptGroup(
            prompt_ids=group.prompt_ids[:_PROBE_TOKENS],
            response_ids=[(2 * [*response])[:_PROBE_TOKENS] for response in ([*group.response_ids] * 2)[:2]],
        )
        for group in ([*groups] * 2)[:2]
    ]


def _causal_lm(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside a peft wrapper, or the model itself."""
    base: Any = model
    causal_lm: PreTrainedModel = base.get_base_model() if hasattr(base, "get_base_model") else base
    return causal_lm


def _plain_logprobs(
    model: nn.Module, device: torch.device, prompt_ids: Sequence[int], response_ids: Sequence[int]
) -> Tensor:
    input_ids = torch.tensor([[*prompt_ids, *response_ids]], device=device)
    num_targets = len(response_ids)
    output = model(input_ids=input_ids, use_cache=False, logits_to_keep=num_targets + 1)
    logps_TV: Tensor = output.logits[0, :-1].float().log_softmax(-1)
    return logps_TV.gather(1, input_ids[0, -num_targets:, None])[:, 0]


@dataclass(frozen=True, kw_only=True)
class Head:
    """The map from hidden states to logits z = c tanh(s (W h + b) / c), or s (W h + b) where there is no soft cap c."""

    weight_VE: Tensor
    bias_V: Tensor | None
    scale: float
    softcap: float | None

    @classmethod
    def of(cls, model: PreTrainedModel) -> Head:
        """Cohere multiplies its logits by `logit_scale`, Granite divides by `logits_scaling`, Gemma 2 caps them.

        Raises:
            PackingUnsupportedError: the head is not one linear layer, for example because an adapter wraps it.
        """
        layer = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers does not annotate it
        if not isinstance(layer, nn.Linear):
            raise PackingUnsupportedError(f"The head of {type(model).__name__} is a {type(layer).__name__}.")
        config = model.config.get_text_config()
        return cls(
            weight_VE=layer.weight,
            bias_V=layer.bias,
            scale=getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0),
            softcap=getattr(config, "final_logit_softcapping", None),
        )

    def logits(self, hidden_CE: Tensor) -> Tensor:
        """float32 [C, V]."""
        logits_CV = linear(hidden_CE, self.weight_VE, self.bias_V).float()
        if self.scale != 1:
            logits_CV *= self.scale
        if self.softcap is not None:
            logits_CV = self.softcap * torch.tanh(logits_CV / self.softcap)
        return logits_CV

    def slope(self, logits_CV: Tensor) -> Tensor | float:
        """dz / d(W h + b)."""
        if self.softcap is None:
            return self.scale
        return self.scale * (1 - (logits_CV / self.softcap).square())


def head_logprobs(hidden_TE: Tensor, head: Head, targets_T: Tensor, *, chunk_tokens: int) -> Tensor:
    """log softmax(z)[target]: float32 [T]. Holds the logits of `chunk_tokens` tokens at a time, also in backward."""
    logps_T: Tensor = _HeadLogprobs.apply(  # type: ignore[no-untyped-call]  # torch does not annotate it
        hidden_TE, head.weight_VE, head.bias_V, targets_T, head.scale, head.softcap, chunk_tokens
    )
    return logps_T


class _HeadLogprobs(torch.autograd.Function):
    """Matrix products in the autocast type if there is one, else in the weight's; everything else in float32."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_TE: Tensor,
        weight_VE: Tensor,
        bias_V: Tensor | None,
        targets_T: Tensor,
        scale: float,
        softcap: float | None,
        chunk_tokens: int,
    ) -> Tensor:
        autocast = torch.is_autocast_enabled(hidden_TE.device.type)
        ctx.dtype = torch.get_autocast_dtype(hidden_TE.device.type) if autocast else weight_VE.dtype
        ctx.scale, ctx.softcap, ctx.chunk_tokens = scale, softcap, chunk_tokens
        hidden, head = _cast(ctx, hidden_TE, weight_VE, bias_V)
        normalizer_T = hidden_TE.new_empty(targets_T.shape, dtype=torch.float32)
        target_logits_T = torch.empty_like(normalizer_T)
        for start in range(0, len(targets_T), chunk_tokens):
            chunk = slice(start, start + chunk_tokens)
            logits_CV = head.logits(hidden[chunk])
            normalizer_T[chunk] = logits_CV.logsumexp(-1)
            target_logits_T[chunk] = logits_CV.gather(1, targets_T[chunk, None])[:, 0]
        ctx.save_for_backward(hidden_TE, weight_VE, bias_V, targets_T, normalizer_T)
        return target_logits_T - normalizer_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_T: Tensor) -> tuple[Tensor | None, ...]:
        """d log p(y) / dz = onehot(y) - softmax(z). Autograd casts the float32 sums to the types of the inputs."""
        hidden_TE, weight_VE, bias_V, targets_T, normalizer_T = ctx.saved_tensors
        hidden, head = _cast(ctx, hidden_TE, weight_VE, bias_V)
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden_TE = torch.empty_like(hidden) if wants_hidden else None
        grad_weight_VE = torch.zeros_like(weight_VE, dtype=torch.float32) if wants_weight else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if wants_bias else None
        for start in range(0, len(targets_T), ctx.chunk_tokens):
            chunk = slice(start, start + ctx.chunk_tokens)
            logits_CV = head.logits(hidden[chunk])
            slope = head.slope(logits_CV)
            grad_CV = logits_CV.sub_(normalizer_T[chunk, None]).exp_().mul_(-grad_T[chunk, None])
            grad_CV.scatter_add_(1, targets_T[chunk, None], grad_T[chunk, None]).mul_(slope)
            if grad_bias_V is not None:
                grad_bias_V += grad_CV.sum(0)
            grad_CV = grad_CV.to(ctx.dtype)
            if grad_hidden_TE is not None:
                grad_hidden_TE[chunk] = grad_CV @ head.weight_VE
            if grad_weight_VE is not None:
                grad_weight_VE += grad_CV.T @ hidden[chunk]
        return grad_hidden_TE, grad_weight_VE, grad_bias_V, None, None, None, None


def _cast(ctx: Any, hidden_TE: Tensor, weight_VE: Tensor, bias_V: Tensor | None) -> tuple[Tensor, Head]:
    head = Head(
        weight_VE=weight_VE.to(ctx.dtype),
        bias_V=None if bias_V is None else bias_V.to(ctx.dtype),
        scale=ctx.scale,
        softcap=ctx.softcap,
    )
    return hidden_TE.to(ctx.dtype), head
