"""The policy as it is trained: adapters, no dropout, an optimizer; and back to an ordinary model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import AutoModelForCausalLM, PreTrainedModel

from sppo_trainer.config import LoRA, Training
from sppo_trainer.logprobs import Method, token_logprobs
from sppo_trainer.packing import PromptGroup
from sppo_trainer.sharding import Ranks


class ResponseLogprobs(nn.Module):
    """`token_logprobs` as a module.

    FSDP gathers a module's weights around its forward, and the head's are used outside of the model's own.
    """

    def __init__(self, policy: nn.Module, method: Method) -> None:
        super().__init__()
        self.policy, self.method = policy, method

    def forward(self, groups: Sequence[PromptGroup]) -> Tensor:
        """float32 [T] over the tokens of all responses; one tensor, for FSDP's hooks cannot be on views."""
        return torch.cat(token_logprobs(self.policy, groups, method=self.method))


def with_lora(policy: PreTrainedModel, lora: LoRA) -> nn.Module:
    """A fresh adapter with B = 0, so that the policy starts as pi_t."""
    adapter = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(lora.target_modules) or "all-linear",
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(policy, adapter)


def train_mode_without_dropout(policy: nn.Module, *, activation_checkpointing: bool) -> None:
    """Activation checkpointing works in training mode only; dropout would make log-ratios noisy there."""
    for module in policy.modules():
        for name in ("p", "attention_dropout", "dropout", "resid_dropout", "hidden_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    policy.train()
    if activation_checkpointing:
        policy.gradient_checkpointing_enable()  # type: ignore[operator]
        policy.enable_input_require_grads()  # type: ignore[operator]


def fresh_optimizer(policy: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Fresh in every iteration. RMSprop has no bias correction: its first steps are large, hence the warm-up."""
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    if training.optimizer == "AdamW":
        return torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)
    return torch.optim.RMSprop(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)


def unsharded(policy: nn.Module, lora: LoRA | None, ranks: Ranks, *, like: Path) -> nn.Module | None:
    """The policy with all its weights: on rank 0, in host memory; None on the others. A collective.

    Args:
        policy: sharded among `ranks`, or whole if there is one rank, which then stays as it is.
        lora: what `policy` was wrapped with.
        like: the model's folder before training, for its architecture.
    """
    if ranks.count == 1:
        return policy
    weights = get_model_state_dict(policy, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if ranks.rank != 0:
        return None
    empty: Any = AutoModelForCausalLM.from_pretrained(
        like, dtype=torch.float32, device_map="meta", local_files_only=True
    )
    result = with_lora(empty, lora) if lora else empty
    result.load_state_dict(weights, assign=True)
    empty.tie_weights()  # assigning gave each name a tensor of its own
    return result


def merged(policy: nn.Module) -> PreTrainedModel:
    """The model to save: LoRA adapters are added to the weights, in fp32."""
    model: Any = policy.merge_and_unload() if isinstance(policy, PeftModel) else policy
    result: PreTrainedModel = model
    return result
