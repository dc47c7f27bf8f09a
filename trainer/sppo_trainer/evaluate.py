"""Stage `evaluate`: is pi_i better than the base and than pi_{i-1}, on prompts that training never saw?

In: the held-out prompts, the models of iterations 0, i-1 and i. Out: `samples` of the policies that had none yet (an
artifact of its own in the folder of that policy's iteration), evaluation.parquet, samples.json.

S responses per prompt and policy at the generation settings; all S x S pairs, ties count 1/2. Interval: 95 % by a
seeded bootstrap over prompts, paired between iterations since the resamples are the same. Base against base is 0.5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sppo_trainer import tables
from sppo_trainer.artifacts import Artifact, Manifest
from sppo_trainer.config import EvaluateConfig, Preference, section
from sppo_trainer.errors import MissingError
from sppo_trainer.rollouts import PreparedPrompts, Row, grouped, prepared_prompts, responses_of, sample, statistics
from sppo_trainer.score import comparison, open_oracle, temperature_of
from sppo_trainer.stage import Stage, main

if TYPE_CHECKING:
    from sppo_trainer.preferences import Judgement

RESAMPLES = 10_000
SHOWN = 32  # prompts in samples.json

Responses = dict[str, list[Row]]


def evaluate(stage: Stage[EvaluateConfig]) -> Manifest:
    config = stage.config
    prepared = prepared_prompts(stage)
    opponents = {"Base": 0, "Previous": max(config.iteration - 1, 0)}
    policies = {name: opponents[name] for name in config.evaluation.against}
    samples = {
        policy: _samples(stage, prepared, policy) for policy in sorted({config.iteration, 0, *policies.values()})
    }
    responses = {policy: grouped(list(responses_of(artifact)), "samples") for policy, artifact in samples.items()}

    oracles = {"preference": config.preference, "evaluation": config.evaluation.preference}
    rows: list[Row] = []
    result: dict[str, float] = {**statistics([row for group in responses[config.iteration].values() for row in group])}
    shown: list[dict[str, Any]] = []
    for oracle_name, preference in oracles.items():
        if preference is None:
            continue
        for opponent, policy in policies.items():
            judged = _compare(stage, preference, oracle_name, prepared, responses[config.iteration], responses[policy])
            win_rates = {prompt_id: win_rate for prompt_id, (win_rate, _) in judged.items()}
            rows += [
                {"prompt_id": prompt_id, "opponent": opponent, "oracle": oracle_name, "win_rate": win_rate}
                for prompt_id, win_rate in win_rates.items()
            ]
            prefix = ("winRate" if oracle_name == "preference" else "secondWinRate") + opponent
            result |= _interval(prefix, win_rates, _groups(config, prepared), config.seed)
            if (oracle_name, policy) == ("preference", 0):
                shown = _shown(judged, prepared, responses[0], responses[config.iteration])
                result |= _graded([judgement for _, judgement in judged.values()], config.evaluation.samples)
    result |= _kl(stage, prepared, responses[config.iteration])

    draft = stage.artifact.draft()
    tables.write(rows, tables.EVALUATION, draft.path("evaluation.parquet"))
    draft.path("samples.json").write_text(json.dumps(shown, ensure_ascii=False, indent=1), "utf-8")
    return stage.commit(
        draft,
        config={
            "seed": config.seed,
            "generation": section(config.generation),
            "evaluation": section(config.evaluation),
            "preference": section(config.preference),
        },
        inputs={f"samples-{policy}": artifact.require().content_digest for policy, artifact in samples.items()},
        rows=len(rows),
        result=result,
    )


def _samples(stage: Stage[EvaluateConfig], prepared: PreparedPrompts, policy: int) -> Artifact:
    """The held-out responses of pi_policy, sampled now if no evaluation has done so yet."""
    artifact = stage.workspace.stage(policy, "evaluate").sub("samples")
    if artifact.manifest() is None:
        sample(
            stage,
            artifact,
            prompt_ids=prepared.held_out,
            prepared=prepared,
            policy=policy,
            purpose="evaluate",
            samples=stage.config.evaluation.samples,
            generation=stage.config.generation,
        )
    return artifact


def _compare(
    stage: Stage[EvaluateConfig],
    preference: Preference,
    oracle_name: str,
    prepared: PreparedPrompts,
    new: Responses,
    old: Responses,
) -> dict[str, tuple[float, Judgement]]:
    """Per prompt: mean P(new > old) over all S x S pairs, and the oracle's numbers (new responses first)."""
    from sppo_trainer.preferences import cross_pairs, probabilities

    oracle = open_oracle(stage, preference, f"{oracle_name}-model")
    comparisons = [comparison(prepared.rows[i], [*new[i], *old[i]], cross_pairs(len(new[i]), len(old[i]))) for i in new]
    judged = {}
    for prompt_id, judgement in zip(new, oracle.judge(comparisons), strict=True):
        table = probabilities(judgement, oracle.scale, temperature_of(preference))
        size = len(new[prompt_id])
        judged[prompt_id] = (float(table[:size, size:].mean()), judgement)
    return judged


def _groups(config: EvaluateConfig, prepared: PreparedPrompts) -> dict[str, str]:
    """The bootstrap's unit of every held-out prompt: itself, or its value in evaluation.groupColumn."""
    column = config.evaluation.group_column
    if column is None:
        return {prompt_id: prompt_id for prompt_id in prepared.held_out}
    for prompt_id in prepared.held_out:
        if column not in prepared.rows[prompt_id]["columns"]:
            raise MissingError(f"evaluation.groupColumn is {column!r}, which some rows lack: add it, or leave it out")
    return {prompt_id: str(prepared.rows[prompt_id]["columns"][column]) for prompt_id in prepared.held_out}


def _interval(prefix: str, win_rates: Mapping[str, float], groups: Mapping[str, str], seed: int) -> dict[str, float]:
    low, high = bootstrap_interval(list(win_rates.values()), [groups[i] for i in win_rates], seed=seed)
    return {prefix: float(np.mean(list(win_rates.values()))), f"{prefix}Low": low, f"{prefix}High": high}


def bootstrap_interval(values: Sequence[float], groups: Sequence[str], *, seed: int) -> tuple[float, float]:
    """95 % percentile interval of the mean, resampling whole groups with replacement.

    The resamples depend on seed and number of groups only, so that two iterations are compared pairwise.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    sums, sizes = np.bincount(index, weights=values), np.bincount(index)
    generator = np.random.Generator(np.random.Philox(key=seed))
    counts = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    means = (counts @ sums) / (counts @ sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _graded(judgements: Sequence[Judgement], samples: int) -> dict[str, float]:
    """Mean score and pass rate of the new responses, where the oracle has such numbers."""
    figures = {}
    scores = [judgement.scores_K[:samples] for judgement in judgements if judgement.scores_K is not None]
    passed = [judgement.passed_K[:samples] for judgement in judgements if judgement.passed_K is not None]
    if scores:
        figures["meanScore"] = float(np.mean(scores))
    if passed:
        figures["passRate"] = float(np.mean(passed))
    return figures


def _shown(
    judged: Mapping[str, tuple[float, Judgement]], prepared: PreparedPrompts, before: Responses, after: Responses
) -> list[dict[str, Any]]:
    """The first answer of the base and of the policy to the first prompts, with their scores."""
    shown = []
    for prompt_id, (win_rate, judgement) in list(judged.items())[:SHOWN]:
        scores = judgement.scores_K
        shown.append(
            {
                "prompt": json.loads(prepared.rows[prompt_id]["messages"])[-1]["content"],
                "before": before[prompt_id][0]["text"],
                "after": after[prompt_id][0]["text"],
                "scoreBefore": None if scores is None else float(scores[len(after[prompt_id])]),
                "scoreAfter": None if scores is None else float(scores[0]),
                "winRate": win_rate,
            }
        )
    return shown


def _kl(stage: Stage[EvaluateConfig], prepared: PreparedPrompts, responses: Responses) -> dict[str, float]:
    """KL(pi_i || base), as the mean of log pi_i - log pi_0 on the new samples, by the training code."""
    if stage.config.iteration == 0:
        return {"klPerResponse": 0.0, "klPerToken": 0.0}
    from sppo_trainer.likelihood import policy_logprobs

    prompts = [prepared.rows[prompt_id]["token_ids"] for prompt_id in responses]
    answers = [[row["token_ids"] for row in group] for group in responses.values()]
    totals = [
        policy_logprobs(stage.workspace.policy(policy).directory("model"), prompts, answers, stage.config.training)
        for policy in (stage.config.iteration, 0)
    ]
    difference = sum(totals[0]) - sum(totals[1])
    tokens = sum(len(answer) for group in answers for answer in group)
    return {"klPerResponse": difference / len(totals[0]), "klPerToken": difference / tokens}


if __name__ == "__main__":
    main(EvaluateConfig, evaluate)
