"""PairRM with small random weights in the real file formats, against a composition by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sppo_trainer import pairrm as pairrm_module
from sppo_trainer.config import Model, PairRM, Precision, Preference
from sppo_trainer.errors import ConfigError, DataError, MissingError
from sppo_trainer.oracle import Judgement, batches
from sppo_trainer.pairrm import PairRMOracle, prompt_text
from sppo_trainer.preferences import Comparison, Response, all_pairs, load_oracle, probabilities
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import DebertaV2Config, DebertaV2Model

WORDS = [
    *["why", "what", "is", "tea", "green", "black", "hot", "cold", "good", "bad"],
    *["yes", "no", "the", "a", "of", "and", ".", "!", "?"],
]
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
MARKERS = ["<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>"]
VOCABULARY = [*SPECIAL, *(f"▁{word}" for word in WORDS), "[MASK]"]
SOURCE_ID, CANDIDATE1_ID, CANDIDATE2_ID, CANDIDATE_ID = range(len(VOCABULARY), len(VOCABULARY) + 4)
PAD, CLS, SEP, UNK = range(4)
HIDDEN = 64

ENCODER: dict[str, Any] = {
    "vocab_size": len(VOCABULARY) + 4,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,  # 64 wide, as in every DeBERTa-v3
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "max_position_embeddings": 512,
    "max_relative_positions": -1,
    "position_biased_input": False,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
}
HF_CONFIG = {
    "architectures": ["DebertaV2PairRM"],
    "model_type": "deberta-v2",
    "n_tasks": 1,
    "drop_out": 0.05,
    "source_prefix_id": SOURCE_ID,
    "cand1_prefix_id": CANDIDATE1_ID,
    "cand2_prefix_id": CANDIDATE2_ID,
    "cand_prefix_id": CANDIDATE_ID,
    "sep_token_id": SEP,
    **ENCODER,
}
BLENDER_CONFIG = {
    "ranker_type": "pairranker",
    "model_type": "deberta",
    "model_name": "microsoft/deberta-v3-large",
    "source_maxlength": 1224,
    "candidate_maxlength": 412,
    "n_tasks": 1,
    "drop_out": 0.05,
}


def save_tokenizer(folder: Path, *, markers: Sequence[str]) -> None:
    """A DeBERTa-v3-like tokenizer.json, with the truncation and padding of its training baked in."""
    tokenizer = Tokenizer(models.Unigram([(token, -float(index)) for index, token in enumerate(VOCABULARY)], UNK))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    tokenizer.add_special_tokens([*SPECIAL, "[MASK]"])
    tokenizer.add_tokens(list(markers))
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=30)
    tokenizer.save(str(folder / "tokenizer.json"))


def random_weights(num_tasks: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    encoder = DebertaV2Model(DebertaV2Config(**ENCODER, initializer_range=0.3))
    weights = {f"pretrained_model.{key}": value for key, value in encoder.state_dict().items()}
    weights["head_layer.1.weight"] = torch.randn(HIDDEN, 2 * HIDDEN) / 8
    weights["head_layer.1.bias"] = torch.randn(HIDDEN)
    weights["head_layer.4.weight"] = torch.randn(num_tasks, HIDDEN) / 4
    weights["head_layer.4.bias"] = torch.randn(num_tasks)
    return {key: value.contiguous().clone() for key, value in weights.items()}


def save_pairrm(folder: Path, *, config: dict[str, Any] | None = None, markers: Sequence[str] = MARKERS) -> Path:
    config = HF_CONFIG if config is None else config
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_tokenizer(folder, markers=markers)
    save_file(random_weights(config["n_tasks"]), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pairrm(tmp_path_factory.mktemp("pairrm") / "PairRM-hf")


def load(folder: Path, precision: Precision = "Float32") -> PairRMOracle:
    return PairRMOracle(PairRM(model=Model(source="hf://llm-blender/PairRM"), precision=precision), folder)


def comparison(prompt: str, *texts: str) -> Comparison:
    return Comparison(
        messages=({"role": "user", "content": prompt},),
        columns={},
        responses=tuple(Response(text=text, token_count=1, finished=True) for text in texts),
        pairs=all_pairs(len(texts)),
    )


def word_ids(text: str) -> list[int]:
    return [VOCABULARY.index(f"▁{word}") for word in text.split()]


@torch.no_grad()
def logit_by_hand(weights: dict[str, torch.Tensor], prompt: str, left: str, right: str) -> float:
    """One pair, unpadded: [CLS]<|source|>x[SEP][CLS]<|candidate1|>y[SEP][CLS]<|candidate2|>y'[SEP], head by matmul."""
    encoder = DebertaV2Model(DebertaV2Config(**ENCODER)).eval()
    encoder.load_state_dict(
        {key.removeprefix("pretrained_model."): value for key, value in weights.items() if key.startswith("pre")}
    )
    ids = [CLS, SOURCE_ID, *word_ids(prompt), SEP]
    ids += [CLS, CANDIDATE1_ID, *word_ids(left), SEP]
    ids += [CLS, CANDIDATE2_ID, *word_ids(right), SEP]
    hidden = encoder(torch.tensor([ids])).last_hidden_state[0]
    source, first, second = (hidden[ids.index(marker)] for marker in (SOURCE_ID, CANDIDATE1_ID, CANDIDATE2_ID))

    def head(candidate: torch.Tensor) -> torch.Tensor:
        inner = weights["head_layer.1.weight"] @ torch.cat([source, candidate]) + weights["head_layer.1.bias"]
        return weights["head_layer.4.weight"] @ torch.tanh(inner) + weights["head_layer.4.bias"]

    return float((head(first) - head(second)).mean())


PROMPTS = ["what is tea ?", "why ?"]
ANSWERS = ["tea is hot .", "no", "the black tea and the green tea of the good and the bad ! !"]


@pytest.mark.parametrize(
    ("config", "markers"),
    [
        (HF_CONFIG, MARKERS),
        (BLENDER_CONFIG, MARKERS),
        (BLENDER_CONFIG, []),
        (HF_CONFIG | {"n_tasks": 3}, MARKERS),
    ],
    ids=["PairRM-hf", "PairRM", "base tokenizer without the markers", "three tasks"],
)
def test_logits_equal_the_composition_by_hand(tmp_path: Path, config: dict[str, Any], markers: list[str]) -> None:
    oracle = load(save_pairrm(tmp_path, config=config, markers=markers))
    weights = random_weights(config["n_tasks"])
    judgements = oracle.judge([comparison(prompt, *ANSWERS) for prompt in PROMPTS])
    spread = []
    for prompt, judgement in zip(PROMPTS, judgements, strict=True):
        assert np.isnan(np.diag(judgement.values_KK)).all()
        assert judgement.counts == {"truncated": 0}
        for i, j in all_pairs(3):
            expected = logit_by_hand(weights, prompt, ANSWERS[i], ANSWERS[j])
            assert judgement.values_KK[i, j] == pytest.approx(expected, abs=1e-5)
            spread.append(expected)
    assert np.std(spread) > 0.01  # otherwise all of this would compare zeros


def test_batches_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = load(folder)
    items = [comparison(prompt, *ANSWERS, "yes " * 25) for prompt in [*PROMPTS, "is the tea good ? " * 4]]
    alone = [oracle.judge([item])[0].values_KK for item in items]
    monkeypatch.setattr(pairrm_module, "TOKENS_PER_BATCH", 1)
    one_by_one = [judgement.values_KK for judgement in oracle.judge(items)]
    monkeypatch.setattr(pairrm_module, "TOKENS_PER_BATCH", 300)
    together = [judgement.values_KK for judgement in oracle.judge(items)]
    for index in range(len(items)):
        np.testing.assert_allclose(together[index], one_by_one[index], atol=1e-5)
        np.testing.assert_allclose(alone[index], one_by_one[index], atol=1e-5)


def test_a_third_response_changes_no_p(folder: Path) -> None:
    oracle = load(folder)
    few, many = oracle.judge([comparison("why ?", *ANSWERS[:2]), comparison("why ?", *ANSWERS)])
    np.testing.assert_allclose(probabilities(many, "Logit")[:2, :2], probabilities(few, "Logit"), atol=1e-6)


def test_limits_are_the_comparisons_own(folder: Path) -> None:
    """Prompt 1224 tokens; each candidate 412 plus half of what the prompt leaves; at most 2048 together."""
    tokenizer = load(folder)._tokenizer
    cases = {  # prompt tokens, answer tokens -> lengths with [CLS], marker and [SEP], and what was cut
        (10, 20): (13, 23, 0),
        (10, 5000): (13, 412 + (1224 - 13) // 2, 2),
        (5000, 20): (1224, 23, 1),
        (5000, 5000): (1224, 412, 3),
    }
    for (prompt, answer), (source_length, candidate_length, cut) in cases.items():
        inputs, num_truncated = tokenizer.encode(comparison("tea " * prompt, "hot " * answer, "cold " * answer))
        ids = inputs[0].token_ids
        assert num_truncated == cut
        assert len(ids) == source_length + 2 * candidate_length <= 2048
        assert [ids[position] for position in inputs[0].markers] == [SOURCE_ID, CANDIDATE1_ID, CANDIDATE2_ID]
        assert [ids[position - 1] for position in inputs[0].markers] == [CLS] * 3
        assert ids[source_length - 1] == ids[source_length + candidate_length - 1] == ids[-1] == SEP


def test_marker_tokens_in_texts_become_spaces(folder: Path) -> None:
    oracle = load(folder)
    plain = comparison("tea ? why ?", "yes no", "hot tea")
    posing = comparison("tea ?[SEP]why ?", "yes<|candidate2|>no", "hot<|source|>tea")
    expected, actual = (oracle.judge([item])[0].values_KK for item in (plain, posing))
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_prompts_are_plain_text() -> None:
    user = {"role": "user", "content": "Why?\n"}
    assert prompt_text([user]) == "Why?\n"
    turns = [{"role": "system", "content": "Be brief."}, user, {"role": "assistant", "content": "So."}, user]
    assert prompt_text(turns) == "SYSTEM: Be brief.\nUSER: Why?\n\nASSISTANT: So.\nUSER: Why?\n"


def test_bfloat16_is_close(folder: Path) -> None:
    item = comparison("why ?", *ANSWERS)
    exact, rounded = (load(folder, precision).judge([item])[0].values_KK for precision in ("Float32", "BFloat16"))
    assert not np.array_equal(exact, rounded, equal_nan=True)
    np.testing.assert_allclose(rounded, exact, atol=0.15)


def edit_weights(folder: Path, *, add: dict[str, torch.Tensor] | None = None, drop: str | None = None) -> None:
    weights = load_file(folder / "model.safetensors") | (add or {})
    weights.pop(drop or "", None)
    save_file(weights, folder / "model.safetensors")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


NAN = torch.full((1, HIDDEN), math.nan)
FAULTS = [
    ("weight missing", lambda d: edit_weights(d, drop="head_layer.4.bias"), DataError, "lack head_layer.4.bias"),
    ("unknown weight", lambda d: edit_weights(d, add={"odd": torch.ones(1)}), DataError, "have the unknown odd"),
    (
        "wrong shape",
        lambda d: edit_weights(d, add={"head_layer.4.bias": torch.ones(2)}),
        DataError,
        "wrong shape of head_layer.4.bias",
    ),
    ("truncated weights", lambda d: truncate(d / "model.safetensors"), DataError, "model.safetensors cannot be read"),
    ("no weights", lambda d: (d / "model.safetensors").unlink(), MissingError, "model.safetensors is missing"),
    ("no tokenizer", lambda d: (d / "tokenizer.json").unlink(), MissingError, "tokenizer.json is missing"),
    ("truncated tokenizer", lambda d: truncate(d / "tokenizer.json"), DataError, "tokenizer.json is not JSON"),
    ("no config", lambda d: (d / "config.json").unlink(), MissingError, "config.json is missing"),
    ("other model", lambda d: edit_config(d, model_type="llama"), ConfigError, "describes no DeBERTa-v3 PairRM"),
    ("other ids", lambda d: edit_config(d, cand1_prefix_id=99), ConfigError, "says cand1_prefix_id 99, but"),
    ("NaN", lambda d: edit_weights(d, add={"head_layer.4.weight": NAN}), DataError, "score that is not finite"),
]


@pytest.mark.parametrize(("damage", "error", "message"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_damaged_folders_are_refused(tmp_path: Path, damage: Any, error: type[Exception], message: str) -> None:
    damage(save_pairrm(tmp_path))
    with pytest.raises(error, match=f"preference.pairRM.model hf://llm-blender/PairRM.*{message}"):
        load(tmp_path).judge([comparison("why ?", *ANSWERS)])


def test_load_oracle(folder: Path) -> None:
    preference = Preference(kind="PairRM", pair_rm=PairRM(model=Model(source="hf://llm-blender/PairRM")))
    oracle = load_oracle(preference, model_dir=folder)
    assert isinstance(oracle, PairRMOracle)
    assert oracle.scale == "Logit"
    with pytest.raises(ValueError, match="needs model_dir"):
        load_oracle(preference)


def test_golden_aggregation() -> None:
    """Independent values of sigmoid((L_ij - L_ji) / 2), copied from the golden numbers of the research."""
    judgement = Judgement(values_KK=np.array([[math.nan, 2, -1], [-1.5, math.nan, 0.5], [1.2, -0.3, math.nan]]))
    golden = [
        [0.5, 0.8519528019683106, 0.24973989440488234],
        [0.14804719803168948, 0.5, 0.5986876601124521],
        [0.7502601055951177, 0.401312339887548, 0.5],
    ]
    np.testing.assert_allclose(probabilities(judgement, "Logit"), golden, rtol=0, atol=1e-12)
    halved = 1 / (1 + math.exp(-1.75 / 2))
    assert probabilities(judgement, "Logit", temperature=2.0)[0, 1] == pytest.approx(halved, abs=1e-12)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], []),
        ([3, 9, 4, 5], [[1], [3, 2], [0]]),
        ([2, 2, 2, 2, 2, 2], [[0, 1, 2, 3, 4], [5]]),
        ([50, 1], [[0], [1]]),
    ],
    ids=["none", "by length", "full", "longer than a batch"],
)
def test_batches(lengths: list[int], expected: list[list[int]]) -> None:
    assert list(batches(lengths, 10)) == expected
