"""The RewardModel oracle: a sequence-classification model that scores each response alone, r(x, y).

L_ij = r_i - r_j, so P_ij = sigmoid((r_i - r_j) / temperature) (Bradley and Terry), which no third response changes.

Shapes: B sequences of a batch, T tokens, K responses of one prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from sppo_trainer.config import RewardModel
from sppo_trainer.errors import ConfigError, DataError
from sppo_trainer.models import DTYPES
from sppo_trainer.oracle import Comparison, Judgement, Scale, batches, pair_table, require_finite
from sppo_trainer.prompts import PINNED_DATE

TOKENS_PER_BATCH = 16384
"""Padding included."""


class RewardModelOracle:
    """Raises DataError or ConfigError for model files that are not a whole reward model with one label.

    An input longer than `maxTokens`, or than the model's positions, loses tokens at the prompt's start, never in the
    response, and is counted as "truncated"; a response that does not fit by itself is a DataError.
    """

    scale: Scale = "Logit"

    def __init__(self, config: RewardModel, model_dir: Path, *, field: str = "preference") -> None:
        self._name = f"{field}.rewardModel.model {config.model.source}"
        self._field = field
        self._tokenizer, self._model = _load(model_dir, DTYPES[config.precision], self._name)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = self._model.to(self._device).eval()
        self._text_config = self._model.config.get_text_config()
        self._has_pad_token = self._text_config.pad_token_id is not None
        positions = getattr(self._text_config, "max_position_embeddings", None)
        self._max_tokens = min(config.max_tokens, positions or config.max_tokens)

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        encoded = [self._encode(comparison, k) for comparison in comparisons for k in range(len(comparison.responses))]
        rewards = iter(self._rewards([token_ids for token_ids, _ in encoded]))
        truncated = iter(is_cut for _, is_cut in encoded)
        judgements = []
        for comparison in comparisons:
            rewards_K = np.array([next(rewards) for _ in comparison.responses])
            judgements.append(
                Judgement(
                    values_KK=pair_table(comparison, [rewards_K[i] - rewards_K[j] for i, j in comparison.pairs]),
                    scores_K=rewards_K,
                    counts={"truncated": sum(next(truncated) for _ in comparison.responses)},
                )
            )
        return judgements

    def _encode(self, comparison: Comparison, k: int) -> tuple[list[int], bool]:
        """The token ids of prompt and response k, and whether the prompt was cut."""
        messages = [dict(message) for message in comparison.messages]
        full = self._rendered([*messages, {"role": "assistant", "content": comparison.responses[k].text}])
        if len(full) <= self._max_tokens:
            return full, False
        # BOS stays: models are trained with it, and some read the score from it.
        start = full[:1] if full[0] in (self._tokenizer.bos_token_id, self._tokenizer.cls_token_id) else []
        room = self._max_tokens - len(start)
        response_length = len(full) - len(self._rendered(messages, add_generation_prompt=True))
        if response_length > room:
            raise DataError(
                f"{self._field}.rewardModel.maxTokens: a response has {response_length} of the reward model's tokens, "
                f"more than the {room} that fit; raise it as far as the model allows, or lower generation.maxTokens"
            )
        return [*start, *full[-room:]], True

    def _rendered(self, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool = False) -> list[int]:
        try:
            encoding = self._tokenizer.apply_chat_template(
                messages,
                add_generation_prompt=add_generation_prompt,
                tokenize=True,
                return_dict=True,
                strftime_now=PINNED_DATE.strftime,
            )
        except jinja2.TemplateError as error:
            raise DataError(
                f"{self._name}: its chat template refuses a prompt ({error}); use a reward model that takes its roles"
            ) from error
        token_ids: list[int] = encoding["input_ids"]
        return token_ids

    @torch.inference_mode()
    def _rewards(self, sequences: Sequence[list[int]]) -> list[float]:
        rewards = [0.0] * len(sequences)
        pad = self._pad_token_id(sequences)
        for batch in batches([len(sequence) for sequence in sequences], TOKENS_PER_BATCH):
            longest = max(len(sequences[index]) for index in batch)
            padding = [longest - len(sequences[index]) for index in batch]
            rows = list(zip(batch, padding, strict=True))
            ids_BT = torch.tensor([sequences[index] + [pad] * count for index, count in rows])
            mask_BT = torch.tensor([[1] * (longest - count) + [0] * count for count in padding])
            logits_B1 = self._model(ids_BT.to(self._device), attention_mask=mask_BT.to(self._device)).logits
            for index, reward in zip(batch, logits_B1.float().squeeze(-1).tolist(), strict=True):
                rewards[index] = reward
        require_finite(rewards, self._name)
        return rewards

    def _pad_token_id(self, sequences: Sequence[list[int]]) -> int:
        """Padding goes at the end, and decoders read the score at the last token that differs from the pad token.

        Without a pad token a single sequence is read at its very end; EOS as padding would move that by one. So take a
        token that ends none of the sequences.
        """
        if not self._has_pad_token:
            last = {sequence[-1] for sequence in sequences}
            self._text_config.pad_token_id = next(token for token in range(len(last) + 1) if token not in last)
        return int(self._text_config.pad_token_id)


def _load(model_dir: Path, dtype: torch.dtype, name: str) -> tuple[Any, Any]:
    """(tokenizer, model), on the CPU; transformers would fill in missing weights at random, so none may be missing."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_dir)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            model_dir, dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"{name} cannot be loaded ({reason}); give a whole sequence-classification model") from error
    if not tokenizer.chat_template:
        raise ConfigError(f"{name} has no chat template; add the one it was trained with to its tokenizer_config.json")
    if loading["missing_keys"]:
        keys = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ConfigError(f"{name} is no reward model: its weights lack {keys}; give a sequence-classification model")
    if model.config.num_labels != 1:
        raise ConfigError(f"{name} has {model.config.num_labels} labels; give a reward model with one")
    return tokenizer, model
