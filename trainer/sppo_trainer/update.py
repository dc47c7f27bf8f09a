"""The optimization of one iteration: a fresh optimizer over a fixed plan of steps, resumable after every one.

    loss = mean over the R responses of a step of ( log pi_theta(y|x) - log pi_t(y|x) - t )^2      (objective.py)

fp32 master weights; the forward in `training.precision`; sums of log-probabilities in fp32; dropout off.

Shapes: R = trained responses of a step or micro-batch.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed.checkpoint as dcp
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from transformers import PreTrainedModel

from sppo_trainer.artifacts import Artifact, Manifest
from sppo_trainer.attention import packed_attention
from sppo_trainer.config import LoRA, TrainConfig, Training
from sppo_trainer.errors import DivergedError
from sppo_trainer.logprobs import choose_method, sequence_logprobs, token_logprobs
from sppo_trainer.models import DTYPES, device
from sppo_trainer.objective import sppo_loss
from sppo_trainer.packing import PromptGroup
from sppo_trainer.prompts import seed_of
from sppo_trainer.selection import Step, batch_plan, learning_rate
from sppo_trainer.stage import Progress

if TYPE_CHECKING:
    from sppo_trainer.train import Trained

DTYPE = torch.float32  # of the master weights, whatever the precision of the forward
FINAL_PROMPTS = 64  # the figures at the end are means over so many prompts, to bound their cost
# Mean |h| per token before the first step, in nats: the same code on the same weights differs by rounding only.
INITIAL_BOUND = 0.01

Reference = Sequence[Sequence[Sequence[float]]]
"""Log-probabilities under pi_t by prompt, response and token."""


class Update:
    """pi_t on its way to pi_{t+1}."""

    def __init__(self, policy: PreTrainedModel, data: Sequence[Trained], config: TrainConfig, *, seed: str) -> None:
        training = config.training
        torch.manual_seed(seed_of(seed) >> 1)  # LoRA's A matrices
        self.data, self.training = data, training
        self.eta = config.objective.eta
        self.save_dtype = DTYPES[training.save_dtype]
        self.groups = [
            PromptGroup(prompt_ids=item.prompt_ids, response_ids=[row["token_ids"] for row in item.responses])
            for item in data
        ]
        self.method = choose_method(policy, self.groups)
        self.base = policy  # packed attention is switched on the model itself, also below a LoRA wrapper
        self.policy: nn.Module = policy if training.lora is None else _with_lora(policy, training.lora)
        _train_mode_without_dropout(self.policy, activation_checkpointing=training.activation_checkpointing)
        self.plan = batch_plan(
            [_tokens(group) for group in self.groups],
            [len(group.response_ids) for group in self.groups],
            batch_size=training.batch_size,
            epochs=training.epochs,
            tokens_per_micro_batch=training.tokens_per_micro_batch,
            seed=seed,
        )
        self.optimizer = _optimizer(self.policy, training)
        self.done = 0
        self.curves: dict[str, list[float]] = {}

    @torch.no_grad()
    def reference_logprobs(self) -> Reference:
        """log pi_t of every response token, in the packing of the first epoch; call it before the first step."""
        first_epoch = self.plan[: math.ceil(len(self.data) / self.training.batch_size)]
        logprobs: dict[int, list[list[float]]] = {}
        with self._packing():
            for step in first_epoch:
                for micro_batch in step.micro_batches:
                    flat = iter(self._token_logprobs(micro_batch))
                    for index in micro_batch:
                        logprobs[index] = [next(flat).tolist() for _ in self.groups[index].response_ids]
        return [logprobs[index] for index in range(len(self.data))]

    def run(
        self, reference: Reference, *, checkpoints: Artifact, commit: Callable[..., Manifest], inputs: Mapping[str, str]
    ) -> None:
        """All steps that are not in the newest checkpoint; raises DivergedError before a NaN reaches the weights."""
        self._resume(checkpoints, inputs)
        progress = Progress(len(self.plan), "steps")
        progress.update(self.done)
        saved = time.monotonic()
        with self._packing():
            for step in self.plan[self.done :]:
                figures = self._step(step, reference)
                for name, value in figures.items():
                    self.curves.setdefault(name, []).append(value)
                self.done += 1
                if time.monotonic() - saved >= 60 * self.training.checkpoint_minutes:
                    self._check_weights()
                    self._save(checkpoints, commit, inputs)
                    saved = time.monotonic()
                progress.update(self.done, lossOverEta2=figures["lossOverEta2"], gradNorm=figures["gradNorm"])
        self._check_weights()

    @torch.no_grad()
    def final_figures(self, reference: Reference) -> dict[str, float]:
        """What the iteration did to its own data: losses over all steps, log-ratios of the policy as it is now."""
        sample = range(min(FINAL_PROMPTS, len(self.data)))
        log_ratios: dict[str, list[float]] = {"best": [], "worst": [], "other": []}
        aims: dict[str, list[float]] = {"best": [], "worst": [], "other": []}
        with self._packing():
            for index in sample:
                h_R = (
                    sequence_logprobs(self._token_logprobs((index,))) - self._reference_sums((index,), reference)
                ).tolist()
                for target, h in zip(self.data[index].targets, h_R, strict=True):
                    log_ratios[target.role].append(h)
                    aims[target.role].append(target.target)
        targets = [target.target for item in self.data for target in item.targets]
        loss = _mean(self.curves["loss"])
        return {
            "steps": self.done,
            "packed": float(self.method == "packed"),
            "trainedTokens": sum(map(_tokens, self.groups)),
            "loss": loss,
            "lossOverEta2": loss / self.eta**2,
            "initialLogRatio": self.curves["initialLogRatio"][0],
            "logRatioBest": _mean(log_ratios["best"]),
            "logRatioWorst": _mean(log_ratios["worst"]),
            "attainedBest": sum(log_ratios["best"]) / (sum(aims["best"]) or 1.0),
            "attainedWorst": sum(log_ratios["worst"]) / (sum(aims["worst"]) or 1.0),
            "targetNet": _mean(targets),
        }

    def _step(self, step: Step, reference: Reference) -> dict[str, float]:
        """One optimizer step; the gradient is that of the mean over all R responses of the step."""
        loss = torch.zeros((), device=device())
        log_ratios: dict[str, list[float]] = {"best": [], "worst": [], "other": []}
        tokens = 0
        self.optimizer.zero_grad()
        for micro_batch in step.micro_batches:
            logps_R = sequence_logprobs(self._token_logprobs(micro_batch))
            reference_R = self._reference_sums(micro_batch, reference)
            targets = [target for index in micro_batch for target in self.data[index].targets]
            targets_R = torch.tensor([target.target for target in targets], device=logps_R.device)
            micro_loss = sppo_loss(logps_R, reference_R, targets_R) * (len(targets) / step.responses)
            micro_loss.backward()  # type: ignore[no-untyped-call]
            loss += micro_loss.detach()
            for target, h in zip(targets, (logps_R.detach() - reference_R).tolist(), strict=True):
                log_ratios[target.role].append(h)
            tokens += sum(len(response) for index in micro_batch for response in self.groups[index].response_ids)
        grad_norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self.training.max_grad_norm or math.inf)
        self._check_finite(float(loss), float(grad_norm))
        rate = learning_rate(
            self.done, steps=len(self.plan), peak=self.training.learning_rate, warmup=self.training.warmup
        )
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        self.optimizer.step()
        figures = {
            "step": float(self.done + 1),
            "loss": float(loss),
            "lossOverEta2": float(loss) / self.eta**2,
            "logRatioBest": _mean(log_ratios["best"]),
            "logRatioWorst": _mean(log_ratios["worst"]),
            "gradNorm": float(grad_norm),
            "learningRate": rate,
        }
        if self.done == 0:
            figures["initialLogRatio"] = sum(abs(h) for hs in log_ratios.values() for h in hs) / tokens
            assert figures["initialLogRatio"] <= INITIAL_BOUND, "before the first step, theta is theta_t"
        return figures

    def _check_finite(self, loss: float, grad_norm: float) -> None:
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise DivergedError(
                f"training.learningRate is {self.training.learning_rate:g}, and at step {self.done + 1} the loss is "
                f"{loss:g} with gradient norm {grad_norm:g}: lower it, raise objective.beta, or use precision Float32"
            )

    def _token_logprobs(self, micro_batch: Sequence[int]) -> list[Tensor]:
        groups = [self.groups[index] for index in micro_batch]
        with torch.autocast(device(), dtype=torch.bfloat16, enabled=self.training.precision == "BFloat16"):
            return token_logprobs(self.policy, groups, method=self.method)

    def _reference_sums(self, micro_batch: Sequence[int], reference: Reference) -> Tensor:
        sums = [sum_fp32(logprobs) for index in micro_batch for logprobs in reference[index]]
        return torch.stack(sums).to(device())

    def _packing(self) -> contextlib.AbstractContextManager[None]:
        """Around forward and backward: with activation checkpointing, layers run again in backward."""
        return packed_attention(self.base) if self.method == "packed" else contextlib.nullcontext()

    def _check_weights(self) -> None:
        """A last step can overflow weights that no later loss would show."""
        for name, parameter in self.policy.named_parameters():
            if not torch.isfinite(parameter).all():
                raise DivergedError(
                    f"training.learningRate is {self.training.learning_rate:g}, and after step {self.done} the weight "
                    f"{name} is not finite: lower it, or raise objective.beta"
                )

    def _save(self, checkpoints: Artifact, commit: Callable[..., Manifest], inputs: Mapping[str, str]) -> None:
        with checkpoints.chunk(self.done).draft() as draft:
            with _plain_errors():
                dcp.save(self._state(), checkpoint_id=str(draft.path("state")), no_dist=True)
            draft.path("curves.json").write_text(json.dumps(self.curves), "utf-8")
            commit(draft, kind="checkpoint", config={"step": self.done}, inputs=inputs, rows=0, result={})
        for folder in (checkpoints.folder / "chunks").iterdir():
            if folder.name != f"{self.done:05d}":
                shutil.rmtree(folder)

    def _resume(self, checkpoints: Artifact, inputs: Mapping[str, str]) -> None:
        steps = sorted(int(folder.name) for folder in (checkpoints.folder / "chunks").glob("[0-9]*"))
        finished = [step for step in steps if checkpoints.chunk(step).made_from({"step": step}, inputs)]
        if not finished:
            return
        newest = checkpoints.chunk(finished[-1])
        state = self._state()
        with _plain_errors():
            dcp.load(state, checkpoint_id=str(newest.directory("state")), no_dist=True)
        set_state_dict(
            self.policy,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=self._options(),
        )
        self.curves = json.loads(newest.path("curves.json").read_text("utf-8"))
        self.done = finished[-1]

    def _state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.policy, self.optimizer, options=self._options())
        return {"model": model, "optimizer": optimizer}

    def _options(self) -> StateDictOptions:
        lora = self.training.lora is not None
        return StateDictOptions(ignore_frozen_params=lora, strict=not lora)


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """The error itself, where torch wraps it in a BaseException, which would pass for the end of the process."""
    try:
        yield
    except CheckpointException as error:
        cause, _ = next(iter(error.failures.values()))
        raise cause from cause.__cause__ or cause.__context__


def merged(policy: nn.Module) -> PreTrainedModel:
    """The model to save: LoRA adapters are added to the weights, in fp32."""
    model: Any = policy.merge_and_unload() if isinstance(policy, PeftModel) else policy
    result: PreTrainedModel = model
    return result


def sum_fp32(logprobs: Sequence[float]) -> Tensor:
    """Sum as `sequence_logprobs` does: on one device, h is then exactly 0 before the first step."""
    return torch.tensor(logprobs, dtype=torch.float32).sum()


def _with_lora(policy: PreTrainedModel, lora: LoRA) -> nn.Module:
    """A fresh adapter with B = 0, so that the policy starts as pi_t."""
    adapter = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(lora.target_modules) or "all-linear",
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(policy, adapter)


def _train_mode_without_dropout(policy: nn.Module, *, activation_checkpointing: bool) -> None:
    """Activation checkpointing works in training mode only; dropout would make log-ratios noisy there."""
    for module in policy.modules():
        for name in ("p", "attention_dropout", "dropout", "resid_dropout", "hidden_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    policy.train()
    if activation_checkpointing:
        policy.gradient_checkpointing_enable()  # type: ignore[operator]
        policy.enable_input_require_grads()  # type: ignore[operator]


def _optimizer(policy: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Fresh in every iteration. RMSprop has no bias correction: its first steps are large, hence the warm-up."""
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    if training.optimizer == "AdamW":
        return torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)
    return torch.optim.RMSprop(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)


def _tokens(group: PromptGroup) -> int:
    return len(group.prompt_ids) + sum(map(len, group.response_ids))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
