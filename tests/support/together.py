"""Ranks without a launcher: processes forked from a server that has imported torch once, joined by gloo."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pipeline

_forkserver = multiprocessing.get_context("forkserver")
_forkserver.set_forkserver_preload(["sppo_trainer.update", "transformers.models.llama.modeling_llama", "together"])

Result = tuple[int, Any]
"""Exit code, as `Process` gives it, and what the function returned."""


def run(function: Callable[..., Any], *args: Any, ranks: int = 2) -> list[Result]:
    """`function(*args)` in each of so many ranks at the same time; it finds its rank in the environment."""
    port = free_port()
    started = []
    for rank in range(ranks):
        ours, theirs = _forkserver.Pipe(duplex=False)
        environment = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": ranks,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": 1,
            "HF_HUB_OFFLINE": 1,
        }
        process = _forkserver.Process(target=_child, args=(theirs, environment, function, args), daemon=True)
        process.start()
        theirs.close()
        started.append((process, ours))
    return [_result(process, connection) for process, connection in started]


def _child(connection: Connection, environment: Mapping[str, Any], function: Callable[..., Any], args: Any) -> None:
    import torch

    os.environ |= {name: str(value) for name, value in environment.items()}
    torch.set_num_threads(1)
    connection.send(function(*args))
    connection.close()
    os._exit(0)  # as a rank ends


def _result(process: Any, connection: Connection) -> Result:
    assert connection.poll(timeout=120) or not process.is_alive(), "a rank hangs"
    try:
        returned = connection.recv()
    except EOFError:  # it was killed
        returned = None
    process.join(timeout=60)
    return process.exitcode, returned


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def rank() -> int:
    return int(os.environ["RANK"])


def train(root: Path, spec: Mapping[str, Any], ranks: int, strike: Mapping[str, Any] | None = None) -> Any:
    """Stage `train` as one of the ranks, or alone; returns its exit code and result.

    `strike` kills the rank `rank` by SIGKILL when it calls the method `call` of `module` for the `time`-th time.
    """
    if strike and strike["rank"] == rank():
        _strike(**strike)
    document = pipeline.config("train", 1, root, spec, processesPerWorker=ranks)
    outcome = pipeline.run_inside("train", document, root, log=root / f"rank-{rank()}.termination")
    return outcome.exit_code, outcome.result


def _strike(*, rank: int, owner: str, call: str, time: int) -> None:
    import importlib

    module, _, name = owner.partition(":")
    target = importlib.import_module(module)
    target = getattr(target, name) if name else target
    original, calls = getattr(target, call), 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == time:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(target, call, deadly)


def gradients(folder: Path, prompts: Sequence[Any], training: Mapping[str, Any], method: str, ranks: int) -> Any:
    """The gradient of the first step and its loss, by an `Update` over ragged synthetic prompts; None on rank 1."""
    import sppo_trainer.update as module
    from sppo_trainer.config import Objective, Run, TrainConfig, Training
    from sppo_trainer.models import load_policy
    from sppo_trainer.sharding import joined, whole

    if method == "plain":
        module.choose_method = lambda model, groups: "plain"
    config = TrainConfig(
        contract=1, stage="train", run=Run(namespace="d", name="d", digest="d"), workspace="/", iteration=1, seed=0,
        objective=Objective(beta=0.05), training=Training(**training), processes_per_worker=ranks,
    )  # fmt: skip
    with joined(ranks) as group:
        update = module.Update(load_policy(folder, dtype=module.DTYPE), prompts, config, seed="s", ranks=group)
        logprobs = update.reference_logprobs()
        # Away from h = 0, so that the gradient depends on the reference as well.
        reference = group.first(lambda: [[module.sum_fp32(of) + 0.5 for of in prompt] for prompt in logprobs])
        results = []
        for step in update.plan:
            figures = update.backward(step, reference)
            grads = {
                name: whole(parameter.grad).numpy().copy()  # a tensor would travel as a file of this process
                for name, parameter in update.policy.named_parameters()
                if parameter.grad is not None
            }
            results.append((figures.loss, grads))
    return results if group.rank == 0 else None
