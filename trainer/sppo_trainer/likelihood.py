"""Log-probabilities of given responses under a saved policy, by the code that trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from sppo_trainer.config import Training
from sppo_trainer.logprobs import choose_method, sequence_logprobs, token_logprobs
from sppo_trainer.models import device, load_policy
from sppo_trainer.packing import PromptGroup
from sppo_trainer.selection import micro_batches
from sppo_trainer.stage import Progress


@torch.no_grad()
def policy_logprobs(
    folder: Path, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[Sequence[int]]], training: Training
) -> list[float]:
    """log pi(y|x) in nats of every response, prompt after prompt."""
    groups = [
        PromptGroup(prompt_ids=prompt, response_ids=answers) for prompt, answers in zip(prompts, responses, strict=True)
    ]
    tokens = [len(group.prompt_ids) + sum(map(len, group.response_ids)) for group in groups]
    policy = load_policy(folder, dtype=torch.float32)
    method = choose_method(policy, groups)
    progress = Progress(len(groups), "prompts")
    sums: list[float] = []
    with torch.autocast(device(), dtype=torch.bfloat16, enabled=training.precision == "BFloat16"):
        for batch in micro_batches(range(len(groups)), tokens, training.tokens_per_micro_batch):
            progress.update(batch[0])
            logprobs = token_logprobs(policy, [groups[index] for index in batch], method=method)
            sums += sequence_logprobs(logprobs).tolist()
    progress.update(len(groups))
    return sums
