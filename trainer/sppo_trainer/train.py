"""Stage `train`: from pi_t to pi_{t+1}, by regressing log-ratios onto targets (objective.py).

In: the responses and scores of this iteration, the model of iteration - 1. Out: model/ (pi_{t+1}), pairs.parquet
(what was trained, with targets), curves.json; and before the first step the artifact `reference` with log pi_t.

Deviations from the reference code (uclaml/SPPO@5e61c4e):
1. The sampled token ids are trained as they are: no second tokenization, no appended EOS, no header in the loss,
   no truncation to 512 tokens.
2. log pi_t is computed once, by the same code as log pi_theta, and kept; the reference holds a second model.
3. The prompt is computed once for all its responses, in packed rows.
4. A stage that was killed resumes from its newest checkpoint, bit for bit; the reference never resumes.
   It may resume on another number of processes, which share the weights (sharding.py).
5. Prompts whose responses are all tied are skipped and counted.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sppo_trainer import tables
from sppo_trainer.artifacts import Artifact, Manifest
from sppo_trainer.config import TrainConfig
from sppo_trainer.config_document import section
from sppo_trainer.errors import DataError
from sppo_trainer.ranks import main
from sppo_trainer.rollouts import grouped, prepared_prompts, rows_of
from sppo_trainer.stage import Stage
from sppo_trainer.tables import Row

if TYPE_CHECKING:
    from sppo_trainer.selection import Target
    from sppo_trainer.update import Update

# Mean |difference| per token, in nats. Two implementations in bf16 differ by about 0.02; another template, weights or
# rotary embedding by far more than 0.1.
SAMPLER_BOUND = 0.1


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One prompt with signal: its tokens, and the responses that are trained."""

    prompt_id: str
    prompt_ids: Sequence[int]
    responses: Sequence[Row]
    targets: Sequence[Target]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """log pi_t of the trained responses."""

    sums: list[list[float]]
    """By prompt and response, over its tokens."""
    sampler_difference: float
    """Mean |log pi_t by the sampler - by the trainer| per token."""


def train(stage: Stage[TrainConfig]) -> Manifest | Mapping[str, Any]:
    from sppo_trainer.checkpoints import Checkpoints
    from sppo_trainer.models import changed_share, load_policy, save_policy
    from sppo_trainer.sharding import joined
    from sppo_trainer.update import DTYPE, Update

    config = stage.config
    previous = stage.workspace.policy(config.iteration - 1)
    with joined(config.ranks) as ranks:
        if ranks.first(lambda: stage.artifact.manifest() is not None):
            return stage.artifact.require() if ranks.rank == 0 else stage.partial_result()
        data, tied = trained_prompts(stage)
        policy = load_policy(previous.directory("model"), dtype=DTYPE)
        update = Update(policy, data, config, seed=f"{config.seed}/train/{config.iteration}", ranks=ranks)
        inputs = _inputs(stage)
        reference = _reference(stage, update, data, inputs)
        folder = stage.artifact.sub("checkpoint")
        update.run(reference.sums, Checkpoints(artifact=folder, commit=stage.commit, inputs=inputs, ranks=ranks))
        figures = update.final_figures(reference.sums)
        trained = update.trained_policy(like=previous.directory("model"))
    if trained is None:
        return stage.partial_result()

    with stage.artifact.draft() as draft:
        save_policy(trained, like=previous.directory("model"), to=draft.path("model"), dtype=update.save_dtype)
        tables.write(_pair_rows(data), tables.PAIRS, draft.path("pairs.parquet"))
        draft.path("curves.json").write_text(json.dumps(update.curves), "utf-8")
        manifest = stage.commit(
            draft,
            config=_recorded(config),
            inputs=inputs | {"reference": stage.artifact.sub("reference").require().content_digest},
            rows=sum(len(prompt.targets) for prompt in data),
            result={
                "prompts": len(data),
                "tiedPrompts": tied,
                **figures,
                **_cut_shares(data),
                "samplerDifference": reference.sampler_difference,
                "weightsChanged": changed_share(previous.directory("model"), draft.folder / "model"),
            },
        )
    shutil.rmtree(folder.folder, ignore_errors=True)
    return manifest


def trained_prompts(stage: Stage[TrainConfig]) -> tuple[list[Trained], int]:
    """(prompts with signal in prompt order, how many were tied); raises DataError if all are tied."""
    from sppo_trainer.selection import select

    config = stage.config
    scores = stage.workspace.stage(config.iteration, "score")
    generated = stage.workspace.stage(config.iteration, "generate")
    responses = grouped(rows_of(generated.chunks(), "responses.parquet"), "responses")
    prepared = prepared_prompts(stage)
    rows = rows_of(scores.chunks(), "scores.parquet")
    data = []
    for row in rows:
        targets = select(row["win_rates"], config.objective)
        if targets:
            prompt_id = row["prompt_id"]
            data.append(
                Trained(
                    prompt_id=prompt_id,
                    prompt_ids=prepared.rows[prompt_id]["token_ids"],
                    responses=[responses[prompt_id][target.k] for target in targets],
                    targets=targets,
                )
            )
    if not data:
        raise DataError(
            f"all {len(rows)} prompts of iteration {config.iteration} are ties, so there is nothing to learn: raise "
            "generation.samples or temperature, or use a preference that tells the responses apart"
        )
    return data, len(rows) - len(data)


def _inputs(stage: Stage[TrainConfig]) -> dict[str, str]:
    config = stage.config
    return {
        "policy": stage.workspace.policy(config.iteration - 1).require().content_digest,
        "responses": stage.workspace.stage(config.iteration, "generate").require().content_digest,
        "scores": stage.workspace.stage(config.iteration, "score").require().content_digest,
    }


def _reference(
    stage: Stage[TrainConfig], update: Update, data: Sequence[Trained], inputs: Mapping[str, str]
) -> Reference:
    """log pi_t, made once before the first step by all ranks; written, read and checked by the first."""
    artifact = stage.artifact.sub("reference")
    recorded = _recorded(stage.config)

    def write() -> None:
        written = [
            {"prompt_id": prompt.prompt_id, "k": target.k, "logprobs": logprobs}
            for prompt, of_prompt in zip(data, computed, strict=True)
            for target, logprobs in zip(prompt.targets, of_prompt, strict=True)
        ]
        with artifact.draft() as draft:
            tables.write(written, tables.REFERENCE, draft.path("reference.parquet"))
            stage.commit(draft, kind="reference", config=recorded, inputs=inputs, rows=len(written), result={})

    if not update.ranks.first(lambda: artifact.made_from(recorded, inputs)):
        computed = update.reference_logprobs()
        update.ranks.first(write)
    return update.ranks.first(lambda: _read_reference(artifact, data))


def _read_reference(artifact: Artifact, data: Sequence[Trained]) -> Reference:
    from sppo_trainer.update import sum_fp32

    rows = iter(tables.read(artifact.path("reference.parquet")))
    logprobs = [[next(rows)["logprobs"] for _ in prompt.targets] for prompt in data]
    return Reference(
        sums=[[sum_fp32(of_response) for of_response in of_prompt] for of_prompt in logprobs],
        sampler_difference=_sampler_difference(data, logprobs),
    )


def _sampler_difference(data: Sequence[Trained], reference: Sequence[Sequence[Sequence[float]]]) -> float:
    """Mean |log pi_t by the sampler - by the trainer| per token; raises DataError above the bound."""
    differences = [
        abs(sampled - trained)
        for prompt, of_prompt in zip(data, reference, strict=True)
        for response, logprobs in zip(prompt.responses, of_prompt, strict=True)
        for sampled, trained in zip(response["logprobs"], logprobs, strict=True)
    ]
    difference = float(sum(differences) / len(differences))
    if not difference <= SAMPLER_BOUND:
        raise DataError(
            f"the sampler's and the trainer's log-probabilities differ by {difference:.3g} nats per token, more than "
            f"{SAMPLER_BOUND}: template, weights or RoPE differ; check generation.engine and the model's files"
        )
    return difference


def _recorded(config: TrainConfig) -> dict[str, object]:
    training = section(config.training)
    del training["checkpointMinutes"]  # when to save changes nothing that is saved
    return {"seed": config.seed, "objective": section(config.objective), "training": training}


def _pair_rows(data: Sequence[Trained]) -> list[Row]:
    return [
        {"prompt_id": prompt.prompt_id, **{name: getattr(target, name) for name in ("k", "role", "win_rate", "target")}}
        for prompt in data
        for target in prompt.targets
    ]


def _cut_shares(data: Sequence[Trained]) -> dict[str, float]:
    """Share of responses that stopped at the length limit, among the best and the worst."""
    cut: Counter[str] = Counter()
    for prompt in data:
        for target, response in zip(prompt.targets, prompt.responses, strict=True):
            cut[target.role] += response["finish_reason"] == "length"
    return {"cutShareBest": cut["best"] / len(data), "cutShareWorst": cut["worst"] / len(data)}


if __name__ == "__main__":
    main(train)
