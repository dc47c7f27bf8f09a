"""Responses of a policy to a list of prompts, in chunks that outlive a kill: shared by generate and evaluate."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppo_trainer import tables
from sppo_trainer.artifacts import Artifact, Manifest
from sppo_trainer.config import Generation
from sppo_trainer.errors import DataError
from sppo_trainer.prompts import sample_seed
from sppo_trainer.stage import Progress, Stage
from sppo_trainer.tables import Row

if TYPE_CHECKING:
    from sppo_trainer.engines import Engine, Sampling


@dataclass(frozen=True, kw_only=True)
class PreparedPrompts:
    """What prepare wrote, by prompt id, and the two splits in their order."""

    rows: Mapping[str, Row]
    held_out: Sequence[str]
    pool: Sequence[str]


def prepared_prompts(stage: Stage[Any]) -> PreparedPrompts:
    rows = tables.read(stage.workspace.stage(0, "prepare").path("prompts.parquet"))
    return PreparedPrompts(
        rows={row["prompt_id"]: row | {"columns": json.loads(row["columns"])} for row in rows},
        held_out=[row["prompt_id"] for row in rows if row["split"] == "held-out"],
        pool=[row["prompt_id"] for row in rows if row["split"] == "pool"],
    )


def chunks_of(items: Sequence[str], size: int) -> list[Sequence[str]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def run_chunks(
    artifact: Artifact,
    total: int,
    *,
    worker: int,
    workers: int,
    finished: Callable[[int], bool],
    work: Callable[[int], Mapping[str, float]],
) -> bool:
    """Do this worker's unfinished chunks, c mod workers = worker; True once all chunks of all workers are committed.

    `work(c)` commits chunk c and returns figures to show. The last of several workers to finish sees all chunks done.
    """
    mine = range(worker, total, workers)
    left = [index for index in mine if not finished(index)]
    progress = Progress(len(mine), "chunks")
    progress.update(len(mine) - len(left))
    for done, index in enumerate(left, start=len(mine) - len(left) + 1):
        progress.update(done, **work(index))
    return all(artifact.chunk(index).manifest() for index in range(total))


def parts(artifact: Artifact, total: int) -> dict[str, str]:
    """Content digests of the chunks, by name."""
    return {f"{index:05d}": artifact.chunk(index).require().content_digest for index in range(total)}


def rows_of(chunks: Iterable[Artifact], table: str) -> list[Row]:
    """All rows of the chunks' tables, in prompt order."""
    return [row for chunk in chunks for row in tables.read(chunk.path(table))]


def sample(  # noqa: PLR0913  # what differs between training and evaluation, each by its name
    stage: Stage[Any],
    artifact: Artifact,
    *,
    prompt_ids: Sequence[str],
    prepared: PreparedPrompts,
    policy: int,
    purpose: str,
    samples: int,
    generation: Generation,
    worker: int = 0,
    workers: int = 1,
) -> Manifest | None:
    """Sample `samples` responses of pi_policy to every prompt into `artifact`.

    Returns its manifest, or None while other workers still have chunks to do. `purpose` keeps the seeds of training
    and evaluation apart.
    """
    from sppo_trainer.engines import Sampling, eos_token_ids
    from sppo_trainer.models import load_tokenizer

    folder = stage.workspace.policy(policy).directory("model")
    tokenizer = load_tokenizer(folder, "the policy's folder")
    chunks = chunks_of(prompt_ids, generation.chunk_prompts)
    sampling = Sampling(
        samples=samples,
        temperature=generation.temperature,
        top_p=generation.top_p,
        top_k=generation.top_k,
        max_tokens=generation.max_tokens,
        eos_ids=eos_token_ids(folder, tokenizer),
    )
    config = _recorded(sampling, generation, purpose, stage.config.seed)
    # Over all chunks, so that every worker and every attempt opens the same engine.
    longest = max(len(prepared.rows[prompt_id]["token_ids"]) for prompt_id in prompt_ids) + generation.max_tokens
    inputs = {
        "prepare": stage.workspace.stage(0, "prepare").require().content_digest,
        "policy": stage.workspace.policy(policy).require().content_digest,
    }
    if artifact.made_from(config, inputs):
        return artifact.require()
    engine: Engine | None = None

    def decode(token_ids: list[int]) -> str:
        return str(tokenizer.decode(token_ids, skip_special_tokens=True))

    def sample_chunk(index: int) -> Mapping[str, float]:
        nonlocal engine
        engine = engine or _open_engine(folder, generation, longest)
        began = time.monotonic()
        rows = _sample(
            engine, [prepared.rows[i] for i in chunks[index]], purpose, policy, stage.config.seed, sampling, decode
        )
        figures = statistics(rows) | {"seconds": time.monotonic() - began}
        with artifact.chunk(index).draft() as draft:
            tables.write(rows, tables.RESPONSES, draft.path("responses.parquet"))
            stage.commit(
                draft, kind="chunk", iteration=policy, config=config, inputs=inputs, rows=len(rows), result=figures
            )
        return {"meanTokens": figures["meanTokens"], "tokensPerSecond": figures["tokens"] / figures["seconds"]}

    complete = run_chunks(
        artifact,
        len(chunks),
        worker=worker,
        workers=workers,
        finished=lambda index: artifact.chunk(index).made_from(config, inputs),
        work=sample_chunk,
    )
    if engine is not None:
        engine.close()
    if not complete:
        return None
    done = [artifact.chunk(index) for index in range(len(chunks))]
    rows = rows_of(done, "responses.parquet")
    return stage.commit(
        artifact.draft(),
        kind=purpose,
        iteration=policy,
        config=config,
        inputs=inputs,
        rows=len(rows),
        parts=parts(artifact, len(chunks)),
        result=statistics(rows) | speed([chunk.require().result for chunk in done], workers),
    )


def speed(chunks: Sequence[Mapping[str, Any]], workers: int) -> dict[str, float]:
    """Of all workers together, from the time that each chunk took: whoever sampled it, in whatever attempt."""
    if not all("seconds" in chunk for chunk in chunks):  # an earlier version sampled some of them
        return {}
    tokens, seconds = (sum(chunk[name] for chunk in chunks) for name in ("tokens", "seconds"))
    return {"tokensPerSecond": min(workers, len(chunks)) * tokens / seconds}


def statistics(rows: Sequence[Row]) -> dict[str, float]:
    """Lengths in tokens; shares of the responses: cut at the limit, different from all others of the policy."""
    texts = {tuple(row["token_ids"]) for row in rows}
    tokens = sum(len(row["token_ids"]) for row in rows)
    return {
        "responses": len(rows),
        "tokens": tokens,
        "meanTokens": tokens / len(rows),
        "cutShare": sum(row["finish_reason"] == "length" for row in rows) / len(rows),
        "distinctShare": len(texts) / len(rows),
    }


def _sample(
    engine: Engine,
    prompts: Sequence[Row],
    purpose: str,
    policy: int,
    seed: int,
    sampling: Sampling,
    decode: Callable[[list[int]], str],
) -> list[Row]:
    seeds = [
        [sample_seed(seed, purpose, policy, prompt["prompt_id"], k) for k in range(sampling.samples)]
        for prompt in prompts
    ]
    answers = engine.sample([prompt["token_ids"] for prompt in prompts], seeds, sampling)
    return [
        {
            "prompt_id": prompt["prompt_id"],
            "k": k,
            "token_ids": list(response.token_ids),
            "logprobs": list(response.logprobs),
            "finish_reason": response.finish_reason,
            "text": decode(list(response.token_ids)),
        }
        for prompt, responses in zip(prompts, answers, strict=True)
        for k, response in enumerate(responses)
    ]


def _open_engine(folder: Path, generation: Generation, longest: int) -> Engine:
    from sppo_trainer.models import DTYPES, device

    if generation.engine == "vLLM":
        from sppo_trainer.vllm_engine import VLLMEngine

        return VLLMEngine(folder, dtype=DTYPES[generation.precision], max_model_len=longest)
    from sppo_trainer.engines import TransformersEngine

    return TransformersEngine(folder, dtype=DTYPES[generation.precision], device=device())


def _recorded(sampling: Sampling, generation: Generation, purpose: str, seed: int) -> dict[str, Any]:
    """The effective parameters, for the manifest: the model's own generation_config plays no part but for EOS."""
    return {
        "purpose": purpose,
        "seed": seed,
        "samples": sampling.samples,
        "temperature": sampling.temperature,
        "topP": sampling.top_p,
        "topK": sampling.top_k,
        "maxTokens": sampling.max_tokens,
        "eosTokenIds": list(sampling.eos_ids),
        "engine": generation.engine,
        "precision": generation.precision,
        "chunkPrompts": generation.chunk_prompts,
    }


def grouped(rows: Sequence[Row], what: str) -> dict[str, list[Row]]:
    """Rows by prompt id, each group in order of k; raises DataError if a group has a gap."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["prompt_id"], []).append(row)
    for prompt_id, group in groups.items():
        if [row["k"] for row in group] != list(range(len(group))):
            raise DataError(f"{what} of prompt {prompt_id} are not 0..K-1: sample them again in an empty folder")
    return groups
