"""The optimization of one iteration: a fresh optimizer over a fixed plan of steps, resumable after every one.

    loss = mean over the R responses of a step of ( log pi_theta(y|x) - log pi_t(y|x) - t )^2      (objective.py)

fp32 master weights; the forward in `training.precision`; sums of log-probabilities in fp32; dropout off. Several ranks
divide the prompts of every step (sharding.py) and get the gradient of one.

Shapes: R = trained responses of a step or micro-batch.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sppo_trainer.attention import packed_attention
from sppo_trainer.checkpoints import Checkpoints, Curves
from sppo_trainer.config import TrainConfig
from sppo_trainer.errors import DivergedError
from sppo_trainer.logprobs import choose_method, sequence_logprobs
from sppo_trainer.models import DTYPES, device
from sppo_trainer.objective import sppo_loss
from sppo_trainer.packing import PromptGroup
from sppo_trainer.prompts import seed_of
from sppo_trainer.selection import Step, batch_plan, learning_rate
from sppo_trainer.sharding import Ranks, Turn, local, reshard, shard, turns, whole
from sppo_trainer.stage import Progress
from sppo_trainer.trainable import (
    ResponseLogprobs,
    fresh_optimizer,
    merged,
    train_mode_without_dropout,
    unsharded,
    with_lora,
)

if TYPE_CHECKING:
    from sppo_trainer.selection import Target
    from sppo_trainer.train import Trained

DTYPE = torch.float32  # of the master weights, whatever the precision of the forward
FINAL_PROMPTS = 64  # the figures at the end are means over so many prompts, to bound their cost
# Mean |h| per token before the first step, in nats: the same code on the same weights differs by rounding only.
INITIAL_BOUND = 0.01
ROLES = ("best", "worst", "other")
SHOWN = ("lossOverEta2", "gradNorm", "logRatioBest", "logRatioWorst", "learningRate")
"""The curves that can be followed while the training runs."""

Reference = Sequence[Sequence[float]]
"""log pi_t(y|x) by prompt and response, as float32 sums of log-probabilities."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of one optimizer step."""

    loss: float
    log_ratios: Mapping[str, Sequence[float]]
    """h of each response, by role."""


class Update:
    """pi_t on its way to pi_{t+1}."""

    def __init__(
        self,
        policy: PreTrainedModel,
        data: Sequence[Trained],
        config: TrainConfig,
        *,
        seed: str,
        ranks: Ranks,
    ) -> None:
        training = config.training
        torch.manual_seed(seed_of(seed) >> 1)  # LoRA's A matrices
        self.data, self.training, self.ranks = data, training, ranks
        self.eta = config.objective.eta
        self.save_dtype = DTYPES[training.save_dtype]
        self.groups = [
            PromptGroup(prompt_ids=item.prompt_ids, response_ids=[row["token_ids"] for row in item.responses])
            for item in data
        ]
        self.tokens = [_tokens(group) for group in self.groups]
        self.method = ranks.first(lambda: choose_method(policy, self.groups))  # one verdict: all run the same forwards
        self.base = policy  # packed attention is switched on the model itself, also below a LoRA wrapper
        self.policy: nn.Module = policy if training.lora is None else with_lora(policy, training.lora)
        train_mode_without_dropout(self.policy, activation_checkpointing=training.activation_checkpointing)
        self.logprobs = ResponseLogprobs(self.policy, self.method)
        if ranks.count > 1:
            shard(self.logprobs, ranks)
        self.plan = batch_plan(
            self.tokens,
            [len(group.response_ids) for group in self.groups],
            batch_size=training.batch_size,
            epochs=training.epochs,
            tokens_per_micro_batch=training.tokens_per_micro_batch,
            seed=seed,
        )
        self.optimizer = fresh_optimizer(self.policy, training)
        self.done = 0
        self.curves: Curves = {}
        self.stepped_tokens = 0
        self.stepping_seconds = 0.0

    def reference_logprobs(self) -> list[list[list[float]]]:
        """log pi_t by prompt, response and token, in the packing of the first epoch; before the first step.

        Every rank computes its share; rank 0 has them all, the others an empty list.
        """
        first_epoch = self.plan[: math.ceil(len(self.data) / self.training.batch_size)]
        own: dict[int, list[list[float]]] = {}
        with self._evaluating():
            for turn in (turn for step in first_epoch for turn in self._turns(step)):
                flat = iter(self._token_logprobs(turn))
                for index in turn[self.ranks.rank]:
                    own[index] = [next(flat).tolist() for _ in self.groups[index].response_ids]
        everyones = {index: logprobs for part in self.ranks.collect(own) for index, logprobs in part.items()}
        return [everyones[index] for index in sorted(everyones)]

    def run(self, reference: Reference, checkpoints: Checkpoints) -> None:
        """All steps that are not in the newest checkpoint; raises DivergedError before a NaN reaches the weights."""
        self.done, self.curves = checkpoints.resume(self.policy, self.optimizer)
        progress = Progress(len(self.plan), "steps", shown=self.ranks.rank == 0)
        progress.update(self.done)
        saved = time.monotonic()
        for step in self.plan[self.done :]:
            began = time.monotonic()
            figures = self._step(step, reference)
            seconds, tokens = time.monotonic() - began, self._tokens_of(step)
            self.stepping_seconds += seconds
            self.stepped_tokens += tokens
            for name, value in figures.items():
                self.curves.setdefault(name, []).append(value)
            self.done += 1
            due = time.monotonic() - saved >= 60 * self.training.checkpoint_minutes
            if self.ranks.gather(due)[0]:  # by one clock: all ranks save, or none
                self._check_weights()
                checkpoints.save(self.done, self.policy, self.optimizer, self.curves)
                saved = time.monotonic()
            progress.update(self.done, **{name: figures[name] for name in SHOWN}, tokensPerSecond=tokens / seconds)
        self._check_weights()

    def final_figures(self, reference: Reference) -> dict[str, float]:
        """What the iteration did to its own data: losses over all steps, log-ratios of the policy as it is now."""
        sample = range(min(FINAL_PROMPTS, len(self.data)))
        own = _joined([])
        with self._evaluating():
            for start in range(0, len(sample), self.ranks.count):
                turn = tuple((index,) if index in sample else () for index in range(start, start + self.ranks.count))
                reference_R = self._reference_sums(turn, reference)
                h_R = sequence_logprobs(self._token_logprobs(turn))[: len(reference_R)] - reference_R
                own = _joined([own, self._by_role(turn, h_R)])
        log_ratios = _joined(self.ranks.gather(own))
        aims = {
            role: sum(target.target for index in sample for target in self.data[index].targets if target.role == role)
            for role in ROLES
        }
        targets = [target.target for item in self.data for target in item.targets]
        loss = _mean(self.curves["loss"])
        return {
            "steps": self.done,
            "packed": float(self.method == "packed"),
            "trainedTokens": sum(self.tokens),
            "loss": loss,
            "lossOverEta2": loss / self.eta**2,
            "initialLogRatio": self.curves["initialLogRatio"][0],
            "logRatioBest": _mean(log_ratios["best"]),
            "logRatioWorst": _mean(log_ratios["worst"]),
            "attainedBest": sum(log_ratios["best"]) / (aims["best"] or 1.0),
            "attainedWorst": sum(log_ratios["worst"]) / (aims["worst"] or 1.0),
            "targetNet": _mean(targets),
            **self._speed(),
        }

    def _speed(self) -> dict[str, float]:
        """Of the steps that this attempt did, if it did any; prompts count once."""
        return {"tokensPerSecond": self.stepped_tokens / self.stepping_seconds} if self.stepped_tokens else {}

    def _tokens_of(self, step: Step) -> int:
        return sum(self.tokens[index] for micro_batch in step.micro_batches for index in micro_batch)

    def trained_policy(self, like: Path) -> PreTrainedModel | None:
        """pi_{t+1}, to be saved: on rank 0, None on the others. `like` is the folder of pi_t."""
        policy = unsharded(self.policy, self.training.lora, self.ranks, like=like)
        return None if policy is None else merged(policy)

    def backward(self, step: Step, reference: Reference) -> Figures:
        """The gradient of the mean over all R responses of the step, into `.grad`; its figures over all ranks."""
        self.optimizer.zero_grad()
        loss = torch.zeros((), device=device())
        log_ratios = _joined([])
        with self._packing():
            for turn in self._turns(step):
                share, h_R = self._backward(turn, step.responses, reference)
                loss += share
                log_ratios = _joined([log_ratios, self._by_role(turn, h_R)])
        parts = self.ranks.gather(Figures(loss=float(loss), log_ratios=log_ratios))
        return Figures(loss=sum(part.loss for part in parts), log_ratios=_joined([part.log_ratios for part in parts]))

    def _backward(self, turn: Turn, responses: int, reference: Reference) -> tuple[Tensor, Tensor]:
        """This rank's share of the loss over so many responses, and its h; adds to the gradient."""
        logps_R = sequence_logprobs(self._token_logprobs(turn))
        reference_R = self._reference_sums(turn, reference)
        targets_R = torch.tensor([target.target for target in self._targets(turn)], device=logps_R.device)
        own = len(targets_R)
        loss = 0 * logps_R[own:].sum()  # dummies weigh nothing, but their backward is a part of the collectives
        if own:
            loss = loss + sppo_loss(logps_R[:own], reference_R, targets_R) * (own / responses)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), logps_R.detach()[:own] - reference_R

    def _step(self, step: Step, reference: Reference) -> dict[str, float]:
        """One optimizer step."""
        figures = self.backward(step, reference)
        grad_norm = float(
            whole(nn.utils.clip_grad_norm_(self.policy.parameters(), self.training.max_grad_norm or math.inf))
        )
        self._check_finite(figures.loss, grad_norm)
        rate = learning_rate(
            self.done, steps=len(self.plan), peak=self.training.learning_rate, warmup=self.training.warmup
        )
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        self.optimizer.step()
        shown = {
            "step": float(self.done + 1),
            "loss": figures.loss,
            "lossOverEta2": figures.loss / self.eta**2,
            "logRatioBest": _mean(figures.log_ratios["best"]),
            "logRatioWorst": _mean(figures.log_ratios["worst"]),
            "gradNorm": grad_norm,
            "learningRate": rate,
        }
        if self.done == 0:
            prompts = [self.groups[index] for micro_batch in step.micro_batches for index in micro_batch]
            tokens = sum(len(response) for group in prompts for response in group.response_ids)
            shown["initialLogRatio"] = sum(abs(h) for hs in figures.log_ratios.values() for h in hs) / tokens
            assert shown["initialLogRatio"] <= INITIAL_BOUND, "before the first step, theta is theta_t"
        return shown

    def _check_finite(self, loss: float, grad_norm: float) -> None:
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise DivergedError(
                f"training.learningRate is {self.training.learning_rate:g}, and at step {self.done + 1} the loss is "
                f"{loss:g} with gradient norm {grad_norm:g}: lower it, raise objective.beta, or use precision Float32"
            )

    def _check_weights(self) -> None:
        """A last step can overflow weights that no later loss would show."""
        broken = next(
            (name for name, weight in self.policy.named_parameters() if not torch.isfinite(local(weight)).all()), None
        )
        if found := next(filter(None, self.ranks.gather(broken)), None):
            raise DivergedError(
                f"training.learningRate is {self.training.learning_rate:g}, and after step {self.done} the weight "
                f"{found} is not finite: lower it, or raise objective.beta"
            )

    def _turns(self, step: Step) -> list[Turn]:
        batch = [index for micro_batch in step.micro_batches for index in micro_batch]
        return turns(batch, self.tokens, ranks=self.ranks.count, budget=self.training.tokens_per_micro_batch)

    def _targets(self, turn: Turn) -> list[Target]:
        return [target for index in turn[self.ranks.rank] for target in self.data[index].targets]

    def _token_logprobs(self, turn: Turn) -> list[Tensor]:
        """Of this rank's responses, and of as many dummies as give all ranks the same number of forwards."""
        forwards = [self._forwards(micro_batch) for micro_batch in turn]
        dummies = [_dummy(self.groups[0])] * (max(forwards) - forwards[self.ranks.rank])
        groups = [*(self.groups[index] for index in turn[self.ranks.rank]), *dummies]
        sharded = self.ranks.count > 1  # a cache of cast weights would keep the gathered ones of all layers
        bfloat16 = self.training.precision == "BFloat16"
        with torch.autocast(device(), dtype=torch.bfloat16, enabled=bfloat16, cache_enabled=not sharded):
            logps_T = self.logprobs(groups)
        return list(logps_T.split([len(response) for group in groups for response in group.response_ids]))

    def _forwards(self, micro_batch: Sequence[int]) -> int:
        if self.method == "packed":
            return min(1, len(micro_batch))
        return sum(len(self.groups[index].response_ids) for index in micro_batch)

    def _reference_sums(self, turn: Turn, reference: Reference) -> Tensor:
        sums = [value for index in turn[self.ranks.rank] for value in reference[index]]
        return torch.tensor(sums, dtype=torch.float32, device=device())

    def _by_role(self, turn: Turn, h_R: Tensor) -> dict[str, list[float]]:
        log_ratios: dict[str, list[float]] = {role: [] for role in ROLES}
        for target, h in zip(self._targets(turn), h_R.tolist(), strict=True):
            log_ratios[target.role].append(h)
        return log_ratios

    def _packing(self) -> contextlib.AbstractContextManager[None]:
        """Around forward and backward: with activation checkpointing, layers run again in backward."""
        return packed_attention(self.base) if self.method == "packed" else contextlib.nullcontext()

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        with torch.no_grad(), self._packing():
            yield
        reshard(self.logprobs)


def sum_fp32(logprobs: Sequence[float]) -> float:
    """Sum as `sequence_logprobs` does: on one device, h is then exactly 0 before the first step."""
    return torch.tensor(logprobs, dtype=torch.float32).sum().item()


def _dummy(group: PromptGroup) -> PromptGroup:
    """The least that can be computed."""
    return PromptGroup(prompt_ids=group.prompt_ids[:1], response_ids=[group.response_ids[0][:1]])


def _joined(parts: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    """Values by role, of all parts one after the other."""
    joined: dict[str, list[float]] = {role: [] for role in ROLES}
    for part in parts:
        for role in ROLES:
            joined[role] += part[role]
    return joined


def _tokens(group: PromptGroup) -> int:
    return len(group.prompt_ids) + sum(map(len, group.response_ids))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
