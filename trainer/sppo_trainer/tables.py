"""The Parquet tables that stages hand to each other, one schema each; DESIGN.md shows them as a table.

Rows of one prompt are adjacent and in order of `k`. Same rows, same bytes: `contentDigest` relies on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]

PROMPTS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),  # hash of the chat messages
        pa.field("split", pa.string(), nullable=False),  # held-out | pool
        pa.field("messages", pa.string(), nullable=False),  # JSON list of {role, content}, system prompt included
        pa.field("columns", pa.string(), nullable=False),  # JSON object: the row's other columns
        pa.field("token_ids", pa.list_(pa.int32()), nullable=False),  # rendered once, here
    ]
)
RESPONSES = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("k", pa.int32(), nullable=False),  # 0..K-1
        pa.field("token_ids", pa.list_(pa.int32()), nullable=False),  # as sampled; EOS once if it was sampled
        pa.field("logprobs", pa.list_(pa.float32()), nullable=False),  # the sampler's, raw: T = 1, no filter
        pa.field("finish_reason", pa.string(), nullable=False),  # stop | length
        pa.field("text", pa.string(), nullable=False),  # decoded, special tokens left out
    ]
)
SCORES = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("scale", pa.string(), nullable=False),  # Logit | Probability, of `values`
        pa.field("values", pa.list_(pa.float64()), nullable=False),  # K x K by rows, as the oracle said; NaN: not asked
        pa.field("probabilities", pa.list_(pa.float64()), nullable=False),  # K x K by rows: P
        pa.field("win_rates", pa.list_(pa.float64()), nullable=False),  # K: P^
        pa.field("scores", pa.list_(pa.float64())),  # K: graded score or reward
        pa.field("passed", pa.list_(pa.bool_())),  # K: all rules hold; Verifier only
        pa.field("counts", pa.string(), nullable=False),  # JSON object: what the oracle cut or could not read
    ]
)
PAIRS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("k", pa.int32(), nullable=False),
        pa.field("role", pa.string(), nullable=False),  # best | worst | other
        pa.field("win_rate", pa.float64(), nullable=False),
        pa.field("target", pa.float64(), nullable=False),  # nats
    ]
)
REFERENCE = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("k", pa.int32(), nullable=False),
        pa.field("logprobs", pa.list_(pa.float32()), nullable=False),  # per token, by the training code
    ]
)
EVALUATION = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("opponent", pa.string(), nullable=False),  # Base | Previous
        pa.field("oracle", pa.string(), nullable=False),  # preference | evaluation
        pa.field("win_rate", pa.float64(), nullable=False),  # mean over the S x S pairs
    ]
)


def write(rows: Sequence[Row], schema: pa.Schema, path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path, compression="zstd")


def read(path: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(path).to_pylist()
    return rows
