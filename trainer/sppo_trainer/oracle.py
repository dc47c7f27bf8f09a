"""What a preference oracle is asked and what it answers.

Shapes: K responses of one prompt; entry (i, j) of a KK table compares response i (shown first) with response j.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sppo_trainer.errors import DataError

Pair = tuple[int, int]
Scale = Literal["Logit", "Probability"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Response:
    text: str
    token_count: int
    finished: bool
    """EOS was sampled; False for a response that was cut at the length limit."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One prompt, its responses, and the pairs of them to compare."""

    messages: tuple[Mapping[str, str], ...]
    """Chat messages {role, content}; the last is the user's."""
    columns: Mapping[str, Any]
    """The other columns of the prompt's row."""
    responses: tuple[Response, ...]
    pairs: tuple[Pair, ...]
    """Ordered pairs (i, j) with i shown first; oracles that score responses singly ignore the order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """What an oracle says about one comparison."""

    values_KK: Floats
    """How much i is preferred to j, on the oracle's scale; NaN on the diagonal and where not asked."""
    scores_K: Floats | None = None
    """Graded score in [0, 1] (Verifier) or reward (RewardModel)."""
    passed_K: NDArray[np.bool_] | None = None
    """All rules hold; Verifier only."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What the user should see beside the numbers, such as {"truncated": 2}; absent means 0."""


class Oracle(Protocol):
    """A preference model, rule set or judge.

    A judgement depends on its own comparison only, not on the others of the call, up to float rounding.
    """

    @property
    def scale(self) -> Scale:
        """Logit: values are logits of "i beats j"; Probability: they are in [0, 1]."""

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """One judgement per comparison, in order."""


def pair_table(comparison: Comparison, values: Iterable[float]) -> Floats:
    """(K, K): one value for each pair of the comparison, in their order, and NaN elsewhere."""
    table_KK = np.full((len(comparison.responses),) * 2, np.nan)
    for pair, value in zip(comparison.pairs, values, strict=True):
        table_KK[pair] = value
    return table_KK


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of similar length: longest x count <= max_tokens tokens, or a single longer sequence.

    The longest come first, so that running out of memory shows at once.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def require_finite(values: Sequence[float], source: str) -> None:
    """Raises DataError if the preference model answered NaN or infinity, which no later step could tell from a gap."""
    if not np.isfinite(values).all():
        raise DataError(
            f"{source} gave a score that is not finite: set precision to Float32, or repair the model's weights"
        )
