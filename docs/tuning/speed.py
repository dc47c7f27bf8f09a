"""Compare ways to do the same work, side by side: python docs/tuning/speed.py DIR, the workspace of a finished demo

Each pair takes turns, so that other work on the machine hits both alike; times are processor seconds of this process.
Appends nothing and changes nothing in DIR: it prints one line per pair, to be copied into docs/performance.md.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "passive"  # before torch: threads that spin would count as work

import torch
from sppo_trainer import tables
from sppo_trainer.artifacts import Workspace
from sppo_trainer.attention import packed_attention
from sppo_trainer.engines import Engine, Sampling, TransformersEngine
from sppo_trainer.logprobs import Method, sequence_logprobs, token_logprobs
from sppo_trainer.models import load_policy
from sppo_trainer.packing import PromptGroup
from sppo_trainer.rollouts import grouped, rows_of
from transformers import PreTrainedModel

ROUNDS = 3
PROMPTS = 8
LONG_TOKENS = 128

Work = Callable[[], int]
"""Does something once and says how many response tokens it did."""


def main(folder: Path) -> None:
    workspace = Workspace(folder, namespace="default", name="demo")
    model = workspace.policy(0).directory("model")
    groups = demo_groups(workspace)
    policy = load_policy(model, dtype=torch.float32)
    best_and_worst = [group_of(group, 2) for group in groups]
    for name, shape in {
        "the demo's best and worst": best_and_worst,
        f"5 answers and a prompt of {LONG_TOKENS} tokens each": [random_group(5)],
    }.items():
        compare(f"train, {name}: packed to plain", step(policy, shape, "packed"), step(policy, shape, "plain"))
    compare(
        "train, packed, per prompt: best and worst to all 5",
        per_prompt(step(policy, best_and_worst, "packed")),
        per_prompt(step(policy, groups, "packed")),
    )
    engine = TransformersEngine(model, dtype=torch.float32, device="cpu")
    compare(
        f"sample: chunks of {PROMPTS} prompts to one prompt at a time",
        sampled(engine, groups, PROMPTS),
        sampled(engine, groups, 1),
    )


def compare(name: str, one: Work, other: Work) -> None:
    """Print how many times the tokens per processor second of `other` does `one`."""
    one(), other()  # warm caches
    ratios = [speed(one) / speed(other) for _ in range(ROUNDS)]
    print(f"{name}: {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})", flush=True)


def speed(work: Work) -> float:
    start = time.process_time()
    return work() / (time.process_time() - start)


def step(policy: PreTrainedModel, groups: list[PromptGroup], method: Method) -> Work:
    """One forward and backward, as a training step without its optimizer."""

    def work() -> int:
        with packing(policy, method):
            logps = sequence_logprobs(token_logprobs(policy, groups, method=method))
            logps.square().mean().backward()  # type: ignore[no-untyped-call]
        policy.zero_grad()
        return sum(len(response) for group in groups for response in group.response_ids)

    return work


@contextmanager
def packing(policy: PreTrainedModel, method: Method) -> Iterator[None]:
    if method == "plain":
        yield
        return
    with packed_attention(policy):
        yield


def per_prompt(work: Work) -> Work:
    def counted() -> int:
        work()
        return PROMPTS

    return counted


def sampled(engine: Engine, groups: list[PromptGroup], prompts: int) -> Work:
    """All prompts, so many at a time."""
    sampling = Sampling(samples=5, temperature=1.0, top_p=1.0, top_k=0, max_tokens=24, eos_ids=(2,))
    seeds = [[PROMPTS * k + index for k in range(5)] for index in range(PROMPTS)]

    def work() -> int:
        tokens = 0
        for start in range(0, PROMPTS, prompts):
            chunk = [list(group.prompt_ids) for group in groups[start : start + prompts]]
            answers = engine.sample(chunk, seeds[start : start + prompts], sampling)
            tokens += sum(len(answer.token_ids) for of_prompt in answers for answer in of_prompt)
        return tokens

    return work


def demo_groups(workspace: Workspace) -> list[PromptGroup]:
    """The first prompts of iteration 1 with all their responses."""
    prompts = tables.read(workspace.stage(0, "prepare").path("prompts.parquet"))
    tokens = {row["prompt_id"]: row["token_ids"] for row in prompts}
    responses = grouped(rows_of(workspace.stage(1, "generate").chunks(), "responses.parquet"), "responses")
    return [
        PromptGroup(prompt_ids=tokens[prompt_id], response_ids=[row["token_ids"] for row in rows])
        for prompt_id, rows in list(responses.items())[:PROMPTS]
    ]


def random_group(answers: int) -> PromptGroup:
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(1000, 40000, (answers + 1, LONG_TOKENS), generator=generator).tolist()
    return PromptGroup(prompt_ids=texts[0], response_ids=texts[1:])


def group_of(group: PromptGroup, answers: int) -> PromptGroup:
    return PromptGroup(prompt_ids=group.prompt_ids, response_ids=group.response_ids[:answers])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
