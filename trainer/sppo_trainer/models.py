"""Model folders: checking one that a user gave, loading it, saving the next policy in the same form."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from sppo_trainer.config import Precision
from sppo_trainer.errors import DataError, MissingError

logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # stages have a progress of their own, and logs are no terminals
DTYPES: dict[Precision, torch.dtype] = {"BFloat16": torch.bfloat16, "Float32": torch.float32}


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_weights(folder: Path, field: str) -> None:
    """Every weight file is there and whole; raises MissingError or DataError naming it."""
    if not (folder / "config.json").is_file():
        raise MissingError(f"{field} has no config.json: give an ordinary Hugging Face model folder")
    files = {file.name for file in folder.glob("*.safetensors")}
    if not files:
        raise MissingError(f"{field} has no *.safetensors file: save the model with safetensors")
    index = folder / "model.safetensors.index.json"
    try:
        listed = set(json.loads(index.read_text("utf-8"))["weight_map"].values()) if index.is_file() else set()
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{field}: {index.name} is damaged ({error!r}): copy it again") from error
    if listed - files:
        raise MissingError(f"{field} lacks {', '.join(sorted(listed - files))}, which its index lists: copy it again")
    for name in sorted(files):
        try:
            with safe_open(folder / name, framework="pt"):
                pass
        except SafetensorError as error:
            raise DataError(f"{field}: {name} is damaged or cut off ({error}): copy it again") from error


def load_tokenizer(folder: Path, field: str) -> PreTrainedTokenizerBase:
    """The tokenizer; raises MissingError if the folder has none or one without a chat template."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MissingError(
            f"{field} has no tokenizer that can be loaded ({_first_line(error)}): add tokenizer.json and "
            "tokenizer_config.json"
        ) from error
    if tokenizer.chat_template is None:
        raise MissingError(
            f"{field} has a tokenizer without chat template: add chat_template.jinja, or use an instruction-tuned model"
        )
    return tokenizer


def context_length(folder: Path, field: str) -> int:
    """Positions of the model, prompt and response together."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{field}: config.json cannot be used ({_first_line(error)}): check model_type") from error
    return int(getattr(config.get_text_config(), "max_position_embeddings", 2**31))


def load_policy(folder: Path, *, dtype: torch.dtype) -> PreTrainedModel:
    """The causal language model in evaluation mode (dropout off), on the GPU if there is one."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    # The fast attention of transformers drops Gemma 2's soft-capping without a word.
    attention = "eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) else "sdpa"
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation=attention, local_files_only=True
    )
    policy: PreTrainedModel = model.to(device()).eval()
    return policy


def check_policy(folder: Path, field: str) -> None:
    """Every weight of the architecture is in the files; transformers would fill in random numbers for a missing one."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, device_map="meta", output_loading_info=True, local_files_only=True
    )
    _, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        raise DataError(f"{field} lacks the weights {', '.join(missing[:3])}: give the whole causal language model")


def save_policy(policy: PreTrainedModel, *, like: Path, to: Path, dtype: torch.dtype) -> None:
    """Write an ordinary model folder: these weights in `dtype`, and all other files of the folder `like`."""
    # Saving checks the generation settings, which play no part here; the folder keeps the file that it came with.
    policy.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    policy.to(dtype).save_pretrained(to)  # type: ignore[arg-type]  # torch's `to` is typed for one dtype keyword
    (to / "generation_config.json").unlink(missing_ok=True)
    for file in like.iterdir():
        if not (to / file.name).exists() and not _is_weight(file.name):
            shutil.copyfile(file, to / file.name)


def changed_share(before: Path, after: Path) -> float:
    """Share of the weights whose saved value differs: bf16 saves round small updates away."""
    changed = total = 0
    old, new = _tensors(before), _tensors(after)
    for name in new.keys() & old.keys():
        tensor = _read(new[name], name)
        changed += int((tensor != _read(old[name], name).to(tensor.dtype)).sum())
        total += tensor.numel()
    return changed / max(total, 1)


def _tensors(folder: Path) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            names.update(dict.fromkeys(weights.keys(), file))
    return names


def _read(file: Path, name: str) -> torch.Tensor:
    with safe_open(file, framework="pt") as weights:
        tensor: torch.Tensor = weights.get_tensor(name)
    return tensor


def _is_weight(name: str) -> bool:
    return name.endswith(".safetensors") or name == "model.safetensors.index.json"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
