"""Packed rows: every prompt once, its responses behind it, no padding.

A row of two prompts with two and one responses lies in memory as

    | prompt a | response a1 | response a2 | prompt b | response b1 |

Each prompt and each response is a segment. A prompt attends causally to itself; a response attends to its prompt and
causally to itself, and its positions continue from the prompt's: the keys of a segment are one path of a tree.

Shapes: N tokens of the row, T response tokens, S segments of a block, Q and K padded query and key tokens of a segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

_LEAST_FILL = 0.5  # of a block's rectangle, by its smallest segment: more blocks cost kernels, emptier ones arithmetic


@dataclass(frozen=True, kw_only=True)
class PromptGroup:
    """One prompt and its responses, as token ids.

    Raises:
        ValueError: the prompt, the list of responses or one of the responses is empty.
    """

    prompt_ids: Sequence[int]
    response_ids: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        if len(self.prompt_ids) == 0:
            raise ValueError("prompt_ids is empty: give at least one token, which predicts the first response token.")
        lengths = [len(response) for response in self.response_ids]
        if min(lengths, default=0) == 0:
            raise ValueError(f"response_ids has lengths {lengths}: give one response or more, each of a token or more.")


@dataclass(frozen=True, kw_only=True)
class Block:
    """Segments of similar size, padded to one rectangle of attention."""

    query_rows_SQ: Tensor
    """Row index of each query; padding repeats the segment's first query, so that no softmax is over nothing."""
    key_rows_SK: Tensor
    key_is_real_SK: Tensor


@dataclass(frozen=True, kw_only=True)
class Packing:
    """A packed row and the place of everything in it."""

    input_ids_N: Tensor
    position_ids_N: Tensor
    predictors_T: Tensor
    """Row index of the token whose hidden state predicts each response token."""
    targets_T: Tensor
    response_lengths: list[int]
    blocks: list[Block]
    unpad_N: Tensor
    """Where each token lies in the concatenated queries of all blocks."""


@dataclass(frozen=True, kw_only=True)
class _Segment:
    prefix: range  # rows of the prompt that a response attends to; empty for a prompt
    own: range

    @property
    def num_keys(self) -> int:
        return len(self.prefix) + len(self.own)


def pack(groups: Sequence[PromptGroup], device: torch.device) -> Packing:
    """Lay out `groups` in one row, in their order."""
    segments: list[_Segment] = []
    tokens: list[int] = []
    predictors: list[int] = []
    for group in groups:
        prompt = range(len(tokens), len(tokens) + len(group.prompt_ids))
        segments.append(_Segment(prefix=range(0), own=prompt))
        tokens.extend(group.prompt_ids)
        for response in group.response_ids:
            own = range(len(tokens), len(tokens) + len(response))
            segments.append(_Segment(prefix=prompt, own=own))
            tokens.extend(response)
            predictors.extend([prompt[-1], *own[:-1]])
    responses = [response for group in groups for response in group.response_ids]
    blocks = _similar_segments(segments)
    return Packing(
        input_ids_N=torch.tensor(tokens, device=device),
        position_ids_N=torch.cat([torch.arange(len(s.prefix), s.num_keys) for s in segments]).to(device),
        predictors_T=torch.tensor(predictors, device=device),
        targets_T=torch.tensor([token for response in responses for token in response], device=device),
        response_lengths=[len(response) for response in responses],
        blocks=[_block(block, device) for block in blocks],
        unpad_N=_unpad(blocks, len(tokens)).to(device),
    )


def _similar_segments(segments: Sequence[_Segment]) -> list[list[_Segment]]:
    """Cut the segments, sorted by size, where the smallest would fill too little of its block's rectangle."""
    blocks: list[list[_Segment]] = []
    num_queries = num_keys = 0
    for segment in sorted(segments, key=lambda s: (s.num_keys, len(s.own)), reverse=True):
        num_queries, num_keys = max(num_queries, len(segment.own)), max(num_keys, segment.num_keys)
        if not blocks or len(segment.own) * segment.num_keys < _LEAST_FILL * num_queries * num_keys:
            blocks.append([])
            num_queries, num_keys = len(segment.own), segment.num_keys
        blocks[-1].append(segment)
    return blocks


def _block(segments: Sequence[_Segment], device: torch.device) -> Block:
    query_rows_SQ = _pad([torch.tensor(s.own) for s in segments])
    key_rows_SK = _pad([torch.tensor([*s.prefix, *s.own]) for s in segments])
    return Block(
        query_rows_SQ=torch.where(query_rows_SQ < 0, query_rows_SQ[:, :1], query_rows_SQ).to(device),
        key_rows_SK=key_rows_SK.clamp(min=0).to(device),
        key_is_real_SK=(key_rows_SK >= 0).to(device),
    )


def _pad(rows: list[Tensor]) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=-1)


def _unpad(blocks: Sequence[Sequence[_Segment]], num_tokens: int) -> Tensor:
    unpad_N = torch.empty(num_tokens, dtype=torch.long)
    start = 0
    for block in blocks:
        for segment in block:
            unpad_N[segment.own.start : segment.own.stop] = torch.arange(start, start + len(segment.own))
            start += max(len(s.own) for s in block)
    return unpad_N
