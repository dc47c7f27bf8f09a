"""Stage `generate`: K responses of the current policy pi_t to every prompt of this iteration's block.

In: prepare's prompts and the model of iteration t = iteration - 1. Out: chunks with responses.parquet.

Deviations from the reference code (uclaml/SPPO@5e61c4e):
1. T and top-p come from the run (paper: 1 and 1; reference code: 0.7 and 0.9), K is free.
2. Every response has a seed of its own; the reference repeats one seed for all prompts.
3. Token ids, finish reason and raw log-probabilities are kept; nothing is tokenized again later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sppo_trainer.artifacts import Manifest
from sppo_trainer.config import GenerateConfig
from sppo_trainer.prompts import block
from sppo_trainer.rollouts import prepared_prompts, sample
from sppo_trainer.stage import Stage, main


def generate(stage: Stage[GenerateConfig]) -> Manifest | Mapping[str, Any]:
    config = stage.config
    prepared = prepared_prompts(stage)
    prompt_ids = block(prepared.pool, iteration=config.iteration, config=config.prompts, seed=config.seed)
    manifest = sample(
        stage,
        stage.artifact,
        prompt_ids=prompt_ids,
        prepared=prepared,
        policy=config.iteration - 1,
        purpose="generate",
        samples=config.generation.samples,
        generation=config.generation,
        worker=stage.worker,
        workers=config.workers,
    )
    return manifest or stage.partial_result()


if __name__ == "__main__":
    main(GenerateConfig, generate)
