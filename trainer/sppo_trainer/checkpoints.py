"""Checkpoints of a training: weights, optimizer and curves after a step, written and read by any number of ranks.

Through torch.distributed.checkpoint: every rank writes its shards, and a reader takes what its own shards need. Only
the newest checkpoint is kept.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from sppo_trainer.artifacts import Artifact, Draft, Manifest
from sppo_trainer.sharding import Ranks

Curves = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    artifact: Artifact
    """Its chunk n is the checkpoint after n steps."""
    commit: Callable[..., Manifest]
    inputs: Mapping[str, str]
    ranks: Ranks

    def save(self, step: int, policy: nn.Module, optimizer: torch.optim.Optimizer, curves: Curves) -> None:
        """Replace the checkpoint before. All ranks call it; rank 0 commits when all have written."""
        with self.artifact.chunk(step).draft() as draft:  # rank 0's is the one that counts
            folder = self.ranks.first(lambda: str(draft.path("state")))
            with _plain_errors():
                dcp.save(_state(policy, optimizer), checkpoint_id=folder, no_dist=self.ranks.count == 1)
            self.ranks.first(lambda: self._commit(draft, step, curves))

    def _commit(self, draft: Draft, step: int, curves: Curves) -> None:
        draft.path("curves.json").write_text(json.dumps(curves), "utf-8")
        self.commit(draft, kind="checkpoint", config={"step": step}, inputs=self.inputs, rows=0, result={})
        for folder in (self.artifact.folder / "chunks").iterdir():
            if folder.name != f"{step:05d}":
                shutil.rmtree(folder)

    def resume(self, policy: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, Curves]:
        """Steps done and their curves, with policy and optimizer as they were then; (0, {}) without a checkpoint."""
        newest = self.ranks.first(self._newest)
        if newest is None:
            return 0, {}
        step, folder, curves = newest
        state = _state(policy, optimizer)
        with _plain_errors():
            dcp.load(state, checkpoint_id=folder, no_dist=self.ranks.count == 1)
        set_state_dict(
            policy,
            optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=_options(policy),
        )
        return step, curves

    def _newest(self) -> tuple[int, str, Curves] | None:
        steps = sorted(int(folder.name) for folder in (self.artifact.folder / "chunks").glob("[0-9]*"))
        for step in reversed(steps):
            chunk = self.artifact.chunk(step)
            if chunk.made_from({"step": step}, self.inputs):
                return step, str(chunk.directory("state")), json.loads(chunk.path("curves.json").read_text("utf-8"))
        return None


def _state(policy: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    model, of_optimizer = get_state_dict(policy, optimizer, options=_options(policy))
    return {"model": model, "optimizer": of_optimizer}


def _options(policy: nn.Module) -> StateDictOptions:
    """Weights that no step changes are those of the model that training starts from: they are not saved again."""
    frozen = any(not parameter.requires_grad for parameter in policy.parameters())
    return StateDictOptions(ignore_frozen_params=frozen, strict=not frozen)


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """The error itself, where torch wraps it in a BaseException, which would pass for the end of the process."""
    try:
        yield
    except CheckpointException as error:
        cause, _ = next(iter(error.failures.values()))
        raise cause from cause.__cause__ or cause.__context__
