"""The PairRM oracle: llm-blender/PairRM, a DeBERTa-v3 cross-encoder that reads a prompt and two responses at once.

Jiang et al. 2023, "LLM-Blender", arXiv:2306.02561; github.com/yuchenlin/LLM-Blender, llm_blender/pair_ranker: the model
is pairrm.py (DebertaV2PairRM), the input is collator.py (CrossCompareCollator). Differences from that code:
- the candidates' budget is computed per comparison, not from the batch's longest prompt: no result depends on others;
- all marker tokens inside texts become spaces, not only [SEP]: a response could otherwise pose as its opponent.

It was trained on -log sigmoid(L), so temperature 1 is its own likelihood. L prefers a position: ask both orders.

Shapes: B sequences of a batch, T tokens, H hidden units, N tasks.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import DebertaV2Config, DebertaV2Model

from sppo_trainer.config import PairRM
from sppo_trainer.errors import ConfigError, DataError, MissingError
from sppo_trainer.models import DTYPES
from sppo_trainer.oracle import Comparison, Judgement, Scale, batches, pair_table, require_finite

SOURCE, CANDIDATE1, CANDIDATE2, CANDIDATE = MARKERS = (
    "<|source|>",
    "<|candidate1|>",
    "<|candidate2|>",
    "<|candidate|>",
)
SOURCE_MAX_TOKENS, CANDIDATE_MAX_TOKENS = 1224, 412
TOKENS_PER_BATCH = 8192
"""Padding included: four inputs of the full 2048 tokens."""
CONFIG_IDS = {
    "source_prefix_id": SOURCE,
    "cand1_prefix_id": CANDIDATE1,
    "cand2_prefix_id": CANDIDATE2,
    "cand_prefix_id": CANDIDATE,
}
DEBERTA_V3_HEAD_SIZE = 64
DEBERTA_V3: dict[str, Any] = {
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
"""What microsoft/deberta-v3-{xsmall,small,base,large} have in common."""


@dataclass(frozen=True, kw_only=True)
class PairInput:
    """One model input: the prompt, the left and the right response, each as [CLS] marker text [SEP]."""

    token_ids: list[int]
    markers: tuple[int, int, int]
    """Positions of the three markers, where the head reads."""


class PairRMOracle:
    """Raises MissingError, DataError or ConfigError for model files that are not a whole PairRM."""

    scale: Scale = "Logit"

    def __init__(self, config: PairRM, model_dir: Path, *, field: str = "preference") -> None:
        self._name = f"{field}.pairRM.model {config.model.source}"
        settings = read_json(model_dir / "config.json", self._name)
        model = build_model(settings, read_weights(model_dir, self._name), self._name)
        self._tokenizer = PairTokenizer(model_dir, settings, self._name)
        if self._tokenizer.vocab_size > model.vocab_size:
            raise ConfigError(f"{self._name}: tokenizer.json has more tokens than the weights; use a matching pair")
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.to(self._device, DTYPES[config.precision]).eval()

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        encoded = [self._tokenizer.encode(comparison) for comparison in comparisons]
        logits = iter(self._logits([item for inputs, _ in encoded for item in inputs]))
        judgements = []
        for comparison, (_, num_truncated) in zip(comparisons, encoded, strict=True):
            values_KK = pair_table(comparison, itertools.islice(logits, len(comparison.pairs)))
            judgements.append(Judgement(values_KK=values_KK, counts={"truncated": num_truncated}))
        return judgements

    @torch.inference_mode()
    def _logits(self, inputs: Sequence[PairInput]) -> list[float]:
        logits = [0.0] * len(inputs)
        for batch in batches([len(item.token_ids) for item in inputs], TOKENS_PER_BATCH):
            tensors = collate([inputs[index] for index in batch])
            values = self._model(*(tensor.to(self._device) for tensor in tensors)).tolist()
            for index, value in zip(batch, values, strict=True):
                logits[index] = value
        require_finite(logits, self._name)
        return logits


class PairRMModel(nn.Module):
    """Encoder and head under the names of the published weights."""

    def __init__(self, config: DebertaV2Config, num_tasks: int) -> None:
        super().__init__()
        self.vocab_size = config.vocab_size
        self.pretrained_model = DebertaV2Model(config)  # type: ignore[no-untyped-call]  # transformers types no __init__
        hidden = config.hidden_size
        # The identities stand for training's dropout: they keep the linear layers' published numbers, 1 and 4.
        self.head_layer = nn.Sequential(
            nn.Identity(), nn.Linear(2 * hidden, hidden), nn.Tanh(), nn.Identity(), nn.Linear(hidden, num_tasks)
        )

    def forward(self, ids_BT: Tensor, mask_BT: Tensor, markers_B3: Tensor) -> Tensor:
        """L (B,), fp32: the logit that the left response beats the right one, score(left) - score(right), task mean."""
        hidden_BTH = self.pretrained_model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
        rows_B1 = torch.arange(len(ids_BT), device=ids_BT.device).unsqueeze(1)
        source_BH, left_BH, right_BH = hidden_BTH[rows_B1, markers_B3].unbind(dim=1)
        left_BN = self.head_layer(torch.cat([source_BH, left_BH], dim=-1))
        right_BN = self.head_layer(torch.cat([source_BH, right_BH], dim=-1))
        logits_B: Tensor = (left_BN.float() - right_BN.float()).mean(dim=-1)
        return logits_B


class PairTokenizer:
    """Comparisons to model inputs; reads tokenizer.json itself, for transformers 5 would replace its normalizer."""

    def __init__(self, model_dir: Path, settings: Mapping[str, Any], name: str) -> None:
        tokenizer = Tokenizer.from_str(json.dumps(read_json(model_dir / "tokenizer.json", name)))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.add_tokens(list(MARKERS))  # the base model's own file lacks them; the order gives training's ids
        self._tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab()
        self._marker_ids = {marker: vocabulary[marker] for marker in MARKERS}
        self._source_limit = int(settings.get("source_maxlength", SOURCE_MAX_TOKENS))
        self._candidate_limit = int(settings.get("candidate_maxlength", CANDIDATE_MAX_TOKENS))
        expected = [tokenizer.token_to_id("[CLS]"), self._marker_ids[SOURCE], tokenizer.token_to_id("[SEP]")]
        if tokenizer.encode(SOURCE).ids != expected:
            raise ConfigError(f"{name}: tokenizer.json does not give [CLS] {SOURCE} [SEP]; use DeBERTa-v3's tokenizer")
        for key, marker in CONFIG_IDS.items():
            if settings.get(key, self._marker_ids[marker]) != self._marker_ids[marker]:
                raise ConfigError(
                    f"{name}: config.json says {key} {settings[key]}, but tokenizer.json numbers {marker} "
                    f"{self._marker_ids[marker]}; use the files of one model"
                )

    @property
    def vocab_size(self) -> int:
        return max(self._tokenizer.get_vocab().values()) + 1

    def encode(self, comparison: Comparison) -> tuple[list[PairInput], int]:
        """The inputs in order of the pairs, and how many of prompt and responses were cut at their ends."""
        source, is_cut = self._part(SOURCE, prompt_text(comparison.messages), self._source_limit)
        budget = self._candidate_limit + (self._source_limit - len(source)) // 2
        num_cut = int(is_cut)
        candidates = []
        for response in comparison.responses:
            candidate, is_cut = self._part(CANDIDATE1, response.text, budget)
            candidates.append(candidate)
            num_cut += is_cut
        return [self._join(source, candidates[i], candidates[j]) for i, j in comparison.pairs], num_cut

    def _part(self, marker: str, text: str, limit: int) -> tuple[list[int], bool]:
        for token in (*MARKERS, "[SEP]"):
            text = text.replace(token, " ")
        ids = self._tokenizer.encode(marker + text).ids
        return (ids, False) if len(ids) <= limit else ([*ids[: limit - 1], ids[-1]], True)

    def _join(self, source: list[int], left: list[int], right: list[int]) -> PairInput:
        right = [right[0], self._marker_ids[CANDIDATE2], *right[2:]]
        return PairInput(
            token_ids=[*source, *left, *right],
            markers=(1, len(source) + 1, len(source) + len(left) + 1),
        )


def prompt_text(messages: Sequence[Mapping[str, str]]) -> str:
    """Plain text, no chat template: a single user turn as it is, more turns as LLM-Blender writes conversations."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role'].upper()}: {message['content']}" for message in messages)


def collate(inputs: Sequence[PairInput]) -> tuple[Tensor, Tensor, Tensor]:
    """ids_BT and mask_BT, padded at the end, and markers_B3."""
    longest = max(len(item.token_ids) for item in inputs)
    padding = [longest - len(item.token_ids) for item in inputs]
    ids_BT = torch.tensor([item.token_ids + [0] * count for item, count in zip(inputs, padding, strict=True)])
    mask_BT = torch.tensor([[1] * (longest - count) + [0] * count for count in padding])
    return ids_BT, mask_BT, torch.tensor([item.markers for item in inputs])


def build_model(settings: Mapping[str, Any], weights: Mapping[str, Tensor], name: str) -> PairRMModel:
    """The model with these weights; raises DataError unless every tensor of both has its counterpart."""
    with torch.random.fork_rng(devices=[]):  # the initial weights, replaced below, must not move the caller's generator
        model = PairRMModel(encoder_config(settings, weights, name), int(settings.get("n_tasks", 1)))
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    given = {key: value.shape for key, value in weights.items()}
    faults = {
        "lack": sorted(shapes.keys() - given.keys()),
        "have the unknown": sorted(given.keys() - shapes.keys()),
        "have the wrong shape of": sorted(key for key in shapes.keys() & given.keys() if shapes[key] != given[key]),
    }
    for fault, keys in faults.items():
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise DataError(f"{name}: the weights {fault} {', '.join(keys[:3])}{more}; use llm-blender/PairRM's files")
    model.load_state_dict(weights)
    return model


def encoder_config(settings: Mapping[str, Any], weights: Mapping[str, Tensor], name: str) -> DebertaV2Config:
    """PairRM-hf describes its encoder in config.json; PairRM only names it, so its sizes are read from the weights."""
    if settings.get("model_type") == "deberta-v2":
        return DebertaV2Config.from_dict(dict(settings))
    base = settings.get("model_name")
    if settings.get("ranker_type") != "pairranker" or not str(base).startswith("microsoft/deberta-v3-"):
        raise ConfigError(f"{name}: config.json describes no DeBERTa-v3 PairRM; use llm-blender/PairRM or PairRM-hf")
    try:
        vocab_size, hidden = weights["pretrained_model.embeddings.word_embeddings.weight"].shape
        intermediate = len(weights["pretrained_model.encoder.layer.0.intermediate.dense.weight"])
    except KeyError as error:
        raise DataError(f"{name}: the weights lack {error.args[0]}; use llm-blender/PairRM's files") from error
    layers = {key.split(".")[3] for key in weights if key.startswith("pretrained_model.encoder.layer.")}
    return DebertaV2Config(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=len(layers),
        num_attention_heads=hidden // DEBERTA_V3_HEAD_SIZE,
        **DEBERTA_V3,
    )


def read_weights(model_dir: Path, name: str) -> dict[str, Tensor]:
    """The tensors of model.safetensors."""
    path = model_dir / "model.safetensors"
    if not path.is_file():
        raise MissingError(f"{name}: {path.name} is missing; copy the whole model folder")
    try:
        weights: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise DataError(f"{name}: {path.name} cannot be read ({error}); copy it again") from error
    return weights


def read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingError(f"{name}: {path.name} is missing; copy the whole model folder") from error
    except ValueError as error:
        raise DataError(f"{name}: {path.name} is not JSON ({error}); copy it again") from error
    if not isinstance(data, dict):
        raise DataError(f"{name}: {path.name} holds no JSON object; copy it again")
    return data
