"""The RewardModel oracle with small random models: decoders (Llama), read at the last token, and encoders (BERT)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sppo_trainer import reward_model as reward_model_module
from sppo_trainer.config import Model, Precision, Preference, RewardModel
from sppo_trainer.errors import ConfigError, DataError
from sppo_trainer.preferences import Comparison, Response, all_pairs, load_oracle, probabilities
from sppo_trainer.reward_model import RewardModelOracle
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    PreTrainedTokenizerFast,
)

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "user:", "assistant:"]
PAD, BOS, EOS, UNK, USER, ASSISTANT = range(6)
LETTERS = "abcdefghij"
VOCABULARY = {token: index for index, token in enumerate([*SPECIAL, *LETTERS])}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ ' ' + m.content + ' ' }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def ids(text: str) -> list[int]:
    return [VOCABULARY[letter] for letter in text.split()]


def rendered(prompt: str, answer: str) -> list[int]:
    return [BOS, USER, *ids(prompt), ASSISTANT, *ids(answer), EOS]


def save_tokenizer(folder: Path, *, template: str | None = TEMPLATE) -> None:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # Adds a BOS of its own, as many do: the template's must not be doubled.
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    tokenizer.add_special_tokens(SPECIAL)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=template,
        padding_side="left",  # ours is fixed, whatever the tokenizer says
    ).save_pretrained(folder)


def llama_config(**settings: Any) -> LlamaConfig:
    defaults: dict[str, Any] = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "num_labels": 1,
        "initializer_range": 0.3,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
    }
    return LlamaConfig(**(defaults | settings))


def save_llama(folder: Path, **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    LlamaForSequenceClassification(llama_config(**settings)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_bert(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "num_labels": 1,
        "initializer_range": 0.3,
        "pad_token_id": PAD,
    }
    BertForSequenceClassification(BertConfig(**settings)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("models") / "llama")


def load(folder: Path, *, precision: Precision = "Float32", max_tokens: int = 64) -> RewardModelOracle:
    config = RewardModel(model=Model(source="hf://org/rm"), precision=precision, max_tokens=max_tokens)
    return RewardModelOracle(config, folder)


def comparison(prompt: str, *texts: str) -> Comparison:
    return Comparison(
        messages=({"role": "user", "content": prompt},),
        columns={},
        responses=tuple(Response(text=text, token_count=1, finished=True) for text in texts),
        pairs=all_pairs(len(texts)),
    )


PROMPTS = ["a b c", "d", "a b c d e f g h i j"]
ANSWERS = ["a", "b c d e", "j i h g f e d c b a a a a a a a a a", ""]


@torch.no_grad()
def reward_by_hand(folder: Path, token_ids: list[int]) -> float:
    """r(x, y) of one unpadded sequence: the score matrix at its last token."""
    weights = load_file(folder / "model.safetensors")
    decoder = LlamaModel(llama_config()).eval()
    decoder.load_state_dict({key.removeprefix("model."): weights[key] for key in weights if key.startswith("model.")})
    hidden = decoder(torch.tensor([token_ids])).last_hidden_state[0, -1]
    return float(weights["score.weight"] @ hidden)


def test_rewards_equal_the_score_at_the_last_token(folder: Path) -> None:
    judgements = load(folder).judge([comparison(prompt, *ANSWERS) for prompt in PROMPTS])
    expected = np.array([[reward_by_hand(folder, rendered(x, y)) for y in ANSWERS] for x in PROMPTS])
    for judgement, rewards_K in zip(judgements, expected, strict=True):
        assert judgement.scores_K is not None
        np.testing.assert_allclose(judgement.scores_K, rewards_K, atol=1e-5)
        off_diagonal = ~np.eye(len(ANSWERS), dtype=bool)
        differences_KK = rewards_K[:, None] - rewards_K[None, :]
        np.testing.assert_allclose(judgement.values_KK[off_diagonal], differences_KK[off_diagonal], atol=2e-5)
        assert np.isnan(np.diag(judgement.values_KK)).all()
        np.testing.assert_allclose(
            probabilities(judgement, "Logit", 2.0), 1 / (1 + np.exp(-differences_KK / 2)), atol=1e-5
        )
        assert judgement.counts == {"truncated": 0}
    assert expected.std() > 0.1  # otherwise all of this would compare zeros


@torch.no_grad()
def rewards_one_by_one(folder: Path) -> list[float]:
    """The model's own answer to single sequences, without any padding."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return [float(model(torch.tensor([rendered(x, y)])).logits) for x in PROMPTS for y in ANSWERS]


@pytest.mark.parametrize(
    "save",
    [
        save_llama,
        lambda path: save_llama(path, pad_token_id=PAD),
        lambda path: save_llama(path, pad_token_id=EOS),
        save_bert,
    ],
    ids=["no pad token", "pad token", "EOS as pad token", "encoder"],
)
@pytest.mark.parametrize("tokens_per_batch", [1, 40, 10_000])
def test_batches_equal_single_sequences(
    tmp_path: Path, save: Any, tokens_per_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reward_model_module, "TOKENS_PER_BATCH", tokens_per_batch)
    folder = save(tmp_path)
    judgements = load(folder).judge([comparison(prompt, *ANSWERS) for prompt in PROMPTS])
    rewards = np.concatenate([judgement.scores_K for judgement in judgements if judgement.scores_K is not None])
    np.testing.assert_allclose(rewards, rewards_one_by_one(folder), atol=1e-5)


def test_a_third_response_changes_no_p(folder: Path) -> None:
    few, many = load(folder).judge([comparison("a b", *ANSWERS[:2]), comparison("a b", *ANSWERS)])
    np.testing.assert_allclose(probabilities(many, "Logit")[:2, :2], probabilities(few, "Logit"), atol=1e-6)


def test_long_inputs_lose_the_prompts_start(folder: Path) -> None:
    oracle = load(folder, max_tokens=12)
    (judgement,) = oracle.judge([comparison("a b c d e f g h", "i j", "i")])
    assert judgement.scores_K is not None
    # 1 + 1 + 8 + 1 + answer + 1 tokens: 14 and 13; BOS and the whole answer stay.
    cut = [[BOS, *rendered("a b c d e f g h", "i j")[3:]], [BOS, *rendered("a b c d e f g h", "i")[2:]]]
    assert [len(token_ids) for token_ids in cut] == [12, 12]
    np.testing.assert_allclose(judgement.scores_K, [reward_by_hand(folder, token_ids) for token_ids in cut], atol=1e-5)
    assert judgement.counts == {"truncated": 2}


def test_the_models_positions_bound_the_input(folder: Path) -> None:
    (judgement,) = load(folder, max_tokens=4096).judge([comparison("a " * 100, "b", "c")])
    assert judgement.counts == {"truncated": 2}


def test_a_response_is_never_cut(folder: Path) -> None:
    with pytest.raises(DataError, match=r"preference.rewardModel.maxTokens: a response has 13 .* 11 that fit"):
        load(folder, max_tokens=12).judge([comparison("a", "b " * 12, "c")])


def test_bfloat16_is_close(folder: Path) -> None:
    item = comparison("a b", *ANSWERS)
    exact, rounded = (
        load(folder, precision=precision).judge([item])[0].scores_K for precision in ("Float32", "BFloat16")
    )
    assert exact is not None
    assert rounded is not None
    assert not np.array_equal(exact, rounded)
    np.testing.assert_allclose(rounded, exact, atol=0.1)


def save_causal_lm(folder: Path) -> None:
    LlamaForCausalLM(llama_config()).save_pretrained(folder)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_nan(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(
        weights | {"score.weight": weights["score.weight"] * math.nan}, folder / "model.safetensors", {"format": "pt"}
    )


def refuse_roles(folder: Path) -> None:
    save_tokenizer(folder, template="{{ raise_exception('no assistants here') }}")


FAULTS = [
    ("no chat template", lambda d: (d / "chat_template.jinja").unlink(), ConfigError, "has no chat template"),
    ("a language model", save_causal_lm, ConfigError, "no reward model: its weights lack score.weight"),
    ("two labels", lambda d: save_llama(d, num_labels=2), ConfigError, "has 2 labels"),
    ("no weights", lambda d: (d / "model.safetensors").unlink(), DataError, "cannot be loaded"),
    ("truncated weights", lambda d: truncate(d / "model.safetensors"), DataError, "cannot be loaded"),
    ("no config", lambda d: (d / "config.json").unlink(), DataError, "cannot be loaded"),
    ("template refuses", refuse_roles, DataError, "refuses a prompt .no assistants here"),
    ("NaN", make_nan, DataError, "score that is not finite"),
]


@pytest.mark.parametrize(("damage", "error", "message"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_damaged_folders_are_refused(tmp_path: Path, damage: Any, error: type[Exception], message: str) -> None:
    damage(save_llama(tmp_path))
    with pytest.raises(error, match=f"preference.rewardModel.model hf://org/rm.*{message}") as caught:
        load(tmp_path).judge([comparison("a b", *ANSWERS)])
    assert "\n" not in str(caught.value)


def test_load_oracle(folder: Path) -> None:
    preference = Preference(kind="RewardModel", reward_model=RewardModel(model=Model(source="hf://org/rm")))
    oracle = load_oracle(preference, model_dir=folder)
    assert isinstance(oracle, RewardModelOracle)
    assert oracle.scale == "Logit"
    assert json.loads((folder / "config.json").read_text()).get("pad_token_id") is None
