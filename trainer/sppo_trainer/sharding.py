"""The ranks of one training: what they agree on, which prompts each of them takes, and how they share the weights.

Fully sharded data parallelism: a step's prompts are divided among the ranks, and FSDP2 keeps 1/W of every weight,
gradient and optimizer state on each of W ranks, gathering a layer's weights while they are needed. Each rank weighs its
responses by their number on all ranks, so gradients are summed over the ranks and not averaged.

Every rank takes part in every collective, in the same order: a rank without prompts in a turn computes a dummy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from sppo_trainer.errors import ConfigError, UserError
from sppo_trainer.models import device
from sppo_trainer.selection import micro_batches

PATIENCE = timedelta(hours=1)
"""Of a rank for the others: one may sync and hash a large checkpoint meanwhile. A rank that ends is noticed at once."""

T = TypeVar("T")
Turn = tuple[tuple[int, ...], ...]
"""What the ranks do at the same time: a micro-batch for each of them, empty for some."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1

    def first(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, on all ranks; what is the user's or the disk's fault there, is raised on all of them."""
        if self.count == 1:
            return make()
        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = make()
            except (UserError, OSError) as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome)
        made, fault = outcome
        if fault is not None:
            raise fault
        value: T = made
        return value

    def gather(self, value: T) -> list[T]:
        """Everybody's value in order of rank, on all ranks."""
        values: list[Any] = [value]
        if self.count > 1:
            values = [None] * self.count
            dist.all_gather_object(values, value)
        return values

    def collect(self, value: T) -> list[T]:
        """Everybody's value in order of rank, on rank 0; nothing on the others."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count if self.rank == 0 else []
        dist.gather_object(value, values if self.rank == 0 else None)
        return values


@contextmanager
def joined(count: int) -> Iterator[Ranks]:
    """The ranks that `ranks.py` started, as a process group; just this process if `count` is 1."""
    if count == 1:
        yield Ranks()
        return
    backend = "gloo"
    if torch.cuda.is_available():
        _choose_gpu(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"  # objects and checkpoint plans travel without the GPU
    dist.init_process_group(backend, timeout=PATIENCE)
    yield Ranks(rank=dist.get_rank(), count=dist.get_world_size())
    # Only after success: once a rank has failed, this could wait for it.
    dist.destroy_process_group()


def _choose_gpu(local_rank: int) -> None:
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"processesPerWorker is above {local_rank}, and the worker sees {torch.cuda.device_count()} GPUs: request "
            "one GPU per process, or use fewer processes"
        )
    torch.cuda.set_device(local_rank)


def turns(batch: Sequence[int], tokens: Sequence[int], *, ranks: int, budget: int) -> list[Turn]:
    """The prompts of a step, divided among the ranks and cut into micro-batches of at most `budget` tokens."""
    shares = balanced(batch, tokens, ranks)
    return list(zip_longest(*(micro_batches(share, tokens, budget) for share in shares), fillvalue=()))


def balanced(batch: Sequence[int], tokens: Sequence[int], ranks: int) -> list[list[int]]:
    """Each rank's prompts, in the order of the batch: the longest first, to the rank with the fewest tokens."""
    owner: dict[int, int] = {}
    loads = [0] * ranks
    for index in sorted(batch, key=lambda index: -tokens[index]):
        owner[index] = loads.index(min(loads))
        loads[owner[index]] += tokens[index]
    return [[index for index in batch if owner[index] == rank] for rank in range(ranks)]


def shard(module: nn.Module, ranks: Ranks) -> None:
    """Shard every layer, and what is outside of layers together. `module` is the one whose forward uses all weights."""
    mesh = init_device_mesh(device(), (ranks.count,))
    layers = [layer for layer in module.modules() if isinstance(layer, GradientCheckpointingLayer)]
    for part in (*layers, module):
        fully_shard(part, mesh=mesh)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)  # gloo cannot sum scaled gradients, not even by 1
            # A mixture of experts may leave an expert without tokens on one rank.
            part.set_reduce_scatter_unused_params(True, recurse=False)


def reshard(module: nn.Module) -> None:
    """Drop weights that a forward without backward left gathered: optimizer and checkpoints know the shards only."""
    if isinstance(module, FSDPModule):
        module.reshard()


def local(tensor: Tensor) -> Tensor:
    """This rank's part."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All ranks' parts; a collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
