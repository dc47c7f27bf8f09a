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
from sppo_trainer.comparisons import comparison, open_oracle, temperature_of
from sppo_trainer.config import EvaluateConfig, Preference
from sppo_trainer.config_document import section
from sppo_trainer.rollouts import PreparedPrompts, grouped, prepared_prompts, rows_of, sample, statistics
from sppo_trainer.stage import Stage, main
from sppo_trainer.tables import Row

if TYPE_CHECKING:
    from sppo_trainer.preferences import Judgement, Oracle

RESAMPLES = 10_000
# Prompts in samples.json: those of the highest and of the lowest win rates, and between them those around the median.
SHOWN_ENDS, SHOWN_MIDDLE = 8, 16

Responses = dict[str, list[Row]]
Verdicts = dict[str, tuple[float, "Judgement"]]
"""By prompt id: mean P(new > old) over the S x S pairs, and the oracle's numbers, new responses first."""


def evaluate(stage: Stage[EvaluateConfig]) -> Manifest:
    config = stage.config
    prepared = prepared_prompts(stage)
    policies = {"Base": 0, "Previous": max(config.iteration - 1, 0)}
    opponents = {name: policies[name] for name in config.evaluation.against}
    samples = {policy: _samples(stage, prepared, policy) for policy in sorted({config.iteration, *opponents.values()})}
    responses = {
        policy: grouped(rows_of(of.chunks(), "responses.parquet"), "samples") for policy, of in samples.items()
    }
    new = responses[config.iteration]

    rows: list[Row] = []
    result = statistics([row for group in new.values() for row in group])
    sampled = samples[config.iteration].require().result
    result |= {name: sampled[name] for name in ("tokensPerSecond",) if name in sampled}
    for name, verdicts in _verdicts(stage, prepared, new, responses).items():
        for opponent, policy in opponents.items():
            win_rates = {prompt_id: win_rate for prompt_id, (win_rate, _) in verdicts[policy].items()}
            rows += [
                {"prompt_id": i, "opponent": opponent, "oracle": name, "win_rate": win_rates[i]} for i in win_rates
            ]
            prefix = {"preference": "winRate", "evaluation": "secondWinRate"}[name] + opponent
            result |= _interval(prefix, win_rates, _groups(config, prepared), config.seed)
        if name == "preference":
            # The base, or the previous policy where the run compares with no base.
            before = min(opponents.values())
            result |= _graded(verdicts[before], config.evaluation.samples)
            shown = _shown(verdicts[before], prepared, responses[before], new)
    result |= _kl(stage, prepared, new)

    with stage.artifact.draft() as draft:
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
            inputs={f"samples-{policy}": of.require().content_digest for policy, of in samples.items()},
            rows=len(rows),
            result=result,
        )


def _samples(stage: Stage[EvaluateConfig], prepared: PreparedPrompts, policy: int) -> Artifact:
    """The held-out responses of pi_policy, sampled now if no evaluation has done so yet."""
    artifact = stage.workspace.stage(policy, "evaluate").sub("samples")
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


def _verdicts(
    stage: Stage[EvaluateConfig], prepared: PreparedPrompts, new: Responses, responses: Mapping[int, Responses]
) -> dict[str, dict[int, Verdicts]]:
    """By oracle and opponent's iteration; every oracle is opened once, every policy judged once."""
    config = stage.config
    if config.iteration == 0:
        # Against itself, a policy has its own responses as opponents: the mean is 1/2 whatever the oracle says.
        against: dict[int, Responses | None] = {0: None}
    else:
        against = {policy: old for policy, old in responses.items() if policy != config.iteration}
    verdicts: dict[str, dict[int, Verdicts]] = {}
    for name, preference in (("preference", config.preference), ("evaluation", config.evaluation.preference)):
        if preference is not None:
            oracle = open_oracle(stage, preference, f"{name}-model")
            verdicts[name] = {
                policy: _compare(oracle, preference, prepared, new, old) for policy, old in against.items()
            }
    return verdicts


def _compare(
    oracle: Oracle, preference: Preference, prepared: PreparedPrompts, new: Responses, old: Responses | None
) -> Verdicts:
    """New responses against old ones, or against themselves."""
    from sppo_trainer.preferences import all_pairs, cross_pairs, probabilities

    comparisons = [
        comparison(prepared.rows[i], [*new[i], *old[i]], cross_pairs(len(new[i]), len(old[i])))
        if old is not None
        else comparison(prepared.rows[i], new[i], all_pairs(len(new[i])))
        for i in new
    ]
    verdicts = {}
    for prompt_id, judgement in zip(new, oracle.judge(comparisons), strict=True):
        table = probabilities(judgement, oracle.scale, temperature_of(preference))
        size = len(new[prompt_id])
        verdicts[prompt_id] = (float((table[:size, size:] if old is not None else table).mean()), judgement)
    return verdicts


def _groups(config: EvaluateConfig, prepared: PreparedPrompts) -> dict[str, str]:
    """The bootstrap's unit of every held-out prompt: itself, or its value in evaluation.groupColumn."""
    column = config.evaluation.group_column
    if column is None:
        return {prompt_id: prompt_id for prompt_id in prepared.held_out}
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


def _graded(verdicts: Verdicts, samples: int) -> dict[str, float]:
    """Mean score and pass rate of the new responses, where the oracle has such numbers."""
    figures = {}
    judgements = [judgement for _, judgement in verdicts.values()]
    scores = [judgement.scores_K[:samples] for judgement in judgements if judgement.scores_K is not None]
    passed = [judgement.passed_K[:samples] for judgement in judgements if judgement.passed_K is not None]
    if scores:
        figures["meanScore"] = float(np.mean(scores))
    if passed:
        figures["passRate"] = float(np.mean(passed))
    return figures


def _shown(verdicts: Verdicts, prepared: PreparedPrompts, before: Responses, after: Responses) -> list[dict[str, Any]]:
    """The first answer of both policies to the prompts that are shown, in prompt order; rank 1 won most."""
    ranks = ranks_to_show([win_rate for win_rate, _ in verdicts.values()])
    shown = []
    for index, (prompt_id, (win_rate, judgement)) in enumerate(verdicts.items()):
        if index not in ranks:
            continue
        scores = None if judgement.scores_K is None else judgement.scores_K.tolist()
        shown.append(
            {
                "prompt": json.loads(prepared.rows[prompt_id]["messages"])[-1]["content"],
                "before": before[prompt_id][0]["text"],
                "after": after[prompt_id][0]["text"],
                # The new responses stand first; against itself, there are no others.
                "scoreBefore": scores and scores[len(after[prompt_id]) % len(scores)],
                "scoreAfter": scores and scores[0],
                "winRate": win_rate,
                "rank": ranks[index],
            }
        )
    return shown


def ranks_to_show(win_rates: Sequence[float]) -> dict[int, int]:
    """Rank by index of the values that are shown; the earlier of equals ranks first."""
    order = sorted(range(len(win_rates)), key=lambda index: -win_rates[index])
    ranks = {index: rank for rank, index in enumerate(order, 1)}
    if len(order) <= 2 * SHOWN_ENDS + SHOWN_MIDDLE:
        return ranks
    middle = (len(order) - SHOWN_MIDDLE) // 2
    chosen = [*order[:SHOWN_ENDS], *order[middle : middle + SHOWN_MIDDLE], *order[-SHOWN_ENDS:]]
    return {index: ranks[index] for index in chosen}


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
