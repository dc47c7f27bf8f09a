"""Attention inside the segments of a packed row, for any model that uses transformers' attention interface.

The positions in a segment's keys are distinct, so the model's own mask function (causal, sliding window, chunked) stays
valid when it is asked about positions instead of row indices. Each block of segments is one rectangular attention.

Shapes: N tokens of the row, T response tokens, S segments of a block, Q and K padded query and key tokens of a segment,
H attention heads, D head dimension, E hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from sppo_trainer.packing import Packing

_IMPLEMENTATION = "sppo_packed"
_HARMLESS_KWARGS = {"position_ids", "sliding_window", "use_cache"}  # the window is part of the mask function
_LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""The mask functions of transformers: (batch, head, query position, key position) -> may attend."""


class PackingUnsupportedError(ValueError):
    """The model needs something that packed rows do not offer; use the plain method."""


@dataclass(frozen=True, kw_only=True)
class PackedMask:
    """What the model hands to its layers as `attention_mask`, also when checkpointing runs them again in backward."""

    packing: Packing
    allowed_SQK: list[Tensor]
    """One mask per block."""


_packing: ContextVar[Packing] = ContextVar("packing")
"""From `packed_hidden_states` to `_packed_mask`, which transformers calls inside the model's forward."""


def packed_hidden_states(model: PreTrainedModel, packing: Packing) -> Tensor:
    """Hidden states [T, hidden] that predict the response tokens, by one forward of the model below its head.

    The model must be inside `packed_attention`.

    Raises:
        PackingUnsupportedError: a layer asks for something that packed attention does not know.
    """
    _check_rope(model)
    token = _packing.set(packing)
    try:
        output = model.base_model(
            input_ids=packing.input_ids_N[None],
            # Without a mask transformers takes each jump of the positions for the start of an unrelated sequence.
            attention_mask=torch.ones_like(packing.input_ids_N)[None],
            position_ids=packing.position_ids_N[None],
            use_cache=False,
        )
    finally:
        _packing.reset(token)
    hidden_NE: Tensor = output.last_hidden_state[0]
    return hidden_NE.index_select(0, packing.predictors_T)


def packed_attention(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Attention over packed rows. Keep it open until backward is done: checkpointed layers run again in there."""
    return attention_implementation(model, _IMPLEMENTATION)


@contextmanager
def attention_implementation(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Switch the model to a registered attention implementation and back.

    Raises:
        PackingUnsupportedError: the model computes its attention without transformers' attention interface.
    """
    sub_configs = {name: getattr(model.config, name, None) for name in model.config.sub_configs}
    before = {name: _implementation(config) for name, config in {"": model.config, **sub_configs}.items() if config}
    try:
        model.set_attn_implementation(implementation)
        if _implementation(model.config) != implementation:
            raise PackingUnsupportedError(f"{type(model).__name__} cannot switch its attention to {implementation}.")
        yield
    finally:
        model.set_attn_implementation(before)


def _implementation(config: PreTrainedConfig) -> str:
    name: str = config._attn_implementation  # noqa: SLF001 (transformers has a public setter only)
    return name


def _check_rope(model: PreTrainedModel) -> None:
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    # One set of parameters, or one for each type of layer.
    types = {parameters.get("rope_type") for parameters in (rope, *rope.values()) if isinstance(parameters, dict)}
    if changing := types & _LENGTH_DEPENDENT_ROPE:
        # One longest position for the whole row would set the frequencies of all its sequences, the short ones too.
        raise PackingUnsupportedError(
            f"The rotary embedding of type {changing.pop()} depends on the sequence's length."
        )


def _packed_mask(*, mask_function: MaskFunction, use_vmap: bool = False, **_: object) -> PackedMask:
    """The model's mask function on positions, within each segment's keys. Called once per kind of mask and forward."""
    if use_vmap:
        raise PackingUnsupportedError("The model composes its mask with a function of row indices.")
    packing = _packing.get(None)
    if packing is None:
        raise PackingUnsupportedError(f"{_IMPLEMENTATION} computes packed rows only; leave it for other forwards.")
    zero = torch.zeros((), dtype=torch.long, device=packing.position_ids_N.device)
    allowed_SQK = []
    for block in packing.blocks:
        query_positions_SQ = packing.position_ids_N[block.query_rows_SQ]
        key_positions_SK = packing.position_ids_N[block.key_rows_SK]
        visible_SQK = mask_function(zero, zero, query_positions_SQ[:, :, None], key_positions_SK[:, None, :])
        allowed_SQK.append(visible_SQK & block.key_is_real_SK[:, None, :])
    return PackedMask(packing=packing, allowed_SQK=allowed_SQK)


def _packed_attention(
    module: nn.Module,
    query_1HND: Tensor,
    key_1HND: Tensor,
    value_1HND: Tensor,
    mask: object,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """transformers' attention interface. Returns [1, N, H, D] and no attention weights."""
    given = {name for name, value in kwargs.items() if value is not None and value is not False}
    if unknown := sorted(given - _HARMLESS_KWARGS):
        raise PackingUnsupportedError(f"{type(module).__name__} asks packed attention for {', '.join(unknown)}.")
    if not isinstance(mask, PackedMask):
        raise PackingUnsupportedError(f"{type(module).__name__} makes a mask of its own, a {type(mask).__name__}.")
    if dropout:
        raise PackingUnsupportedError(f"{type(module).__name__} has attention dropout {dropout}: set it to 0.")
    query_NHD, key_NHD, value_NHD = (states[0].transpose(0, 1) for states in (query_1HND, key_1HND, value_1HND))
    num_key_value_groups = query_NHD.shape[1] // key_NHD.shape[1]
    outputs = []
    for block, allowed_SQK in zip(mask.packing.blocks, mask.allowed_SQK, strict=True):
        query_SHQD = _gather(query_NHD, block.query_rows_SQ)
        key_SHKD = repeat_kv(_gather(key_NHD, block.key_rows_SK), num_key_value_groups)
        value_SHKD = repeat_kv(_gather(value_NHD, block.key_rows_SK), num_key_value_groups)
        scale = query_NHD.shape[-1] ** -0.5 if scaling is None else scaling
        output_SHQD = _attend(query_SHQD, key_SHKD, value_SHKD, allowed_SQK[:, None], scale, softcap)
        outputs.append(output_SHQD.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, mask.packing.unpad_N)[None], None


def _gather(states_NHD: Tensor, rows_SL: Tensor) -> Tensor:
    """[S, H, L, D] for L queries or keys."""
    return states_NHD.index_select(0, rows_SL.flatten()).view(*rows_SL.shape, *states_NHD.shape[1:]).transpose(1, 2)


def _attend(
    query_SHQD: Tensor,
    key_SHKD: Tensor,
    value_SHKD: Tensor,
    allowed_S1QK: Tensor,
    scale: float,
    softcap: float | None,
) -> Tensor:
    """softmax(c tanh(q k / c)) v with the soft cap c of Gemma 2 (arXiv 2408.00118, section 2), or without."""
    if softcap is None:
        return scaled_dot_product_attention(query_SHQD, key_SHKD, value_SHKD, attn_mask=allowed_S1QK, scale=scale)
    scores_SHQK = softcap * torch.tanh(query_SHQD @ key_SHKD.mT * (scale / softcap))
    weights_SHQK = scores_SHQK.masked_fill(~allowed_S1QK, -torch.inf).softmax(-1, dtype=torch.float32)
    return weights_SHQK.to(value_SHKD.dtype) @ value_SHKD


ALL_ATTENTION_FUNCTIONS.register(_IMPLEMENTATION, _packed_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(_IMPLEMENTATION, _packed_mask)
