"""Stage `score`: the oracle's verdict on the K responses of every prompt, P and the win rates P^.

In: generate's chunks. Out: one chunk with scores.parquet for each of them.

Deviations from the reference code (uclaml/SPPO@5e61c4e):
1. P(y > y'|x) comes from the pair alone; the reference averages PairRM's logits over all responses first.
2. The oracle's own numbers are kept beside P, so that P can be computed again without asking again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppo_trainer import tables
from sppo_trainer.artifacts import Artifact, Manifest
from sppo_trainer.comparisons import comparison, open_oracle, temperature_of
from sppo_trainer.config import Preference, ScoreConfig
from sppo_trainer.config_document import section
from sppo_trainer.rollouts import PreparedPrompts, grouped, parts, prepared_prompts, rows_of, run_chunks
from sppo_trainer.stage import Stage, main
from sppo_trainer.tables import Row

if TYPE_CHECKING:
    from sppo_trainer.preferences import Oracle


def score(stage: Stage[ScoreConfig]) -> Manifest | Mapping[str, Any]:
    config = stage.config
    responses = stage.workspace.stage(config.iteration, "generate")
    total = len(responses.require().parts)
    prepared = prepared_prompts(stage)
    recorded = {"preference": section(config.preference), "seed": config.seed}
    oracle: Oracle | None = None

    def inputs_of(index: int) -> Mapping[str, str]:
        return {"responses": responses.chunk(index).require().content_digest}

    def score_chunk(index: int) -> Mapping[str, float]:
        nonlocal oracle
        oracle = oracle or open_oracle(stage, config.preference, "preference-model")
        rows = _score(oracle, config.preference, prepared, responses.chunk(index))
        figures = statistics(rows)
        with stage.artifact.chunk(index).draft() as draft:
            tables.write(rows, tables.SCORES, draft.path("scores.parquet"))
            stage.commit(draft, kind="chunk", config=recorded, inputs=inputs_of(index), rows=len(rows), result=figures)
        return {name: figures[name] for name in ("meanScore", "passRate") if name in figures}

    complete = run_chunks(
        stage.artifact,
        total,
        worker=stage.worker,
        workers=config.workers,
        finished=lambda index: stage.artifact.chunk(index).made_from(recorded, inputs_of(index)),
        work=score_chunk,
    )
    if not complete:
        return stage.partial_result()
    rows = rows_of((stage.artifact.chunk(index) for index in range(total)), "scores.parquet")
    return stage.commit(
        stage.artifact.draft(),
        config=recorded,
        inputs={"responses": responses.require().content_digest},
        rows=len(rows),
        parts=parts(stage.artifact, total),
        result=statistics(rows),
    )


def statistics(rows: Sequence[Row]) -> dict[str, float]:
    import torch

    from sppo_trainer.objective import all_tied

    best = [max(row["win_rates"]) for row in rows]
    worst = [min(row["win_rates"]) for row in rows]
    figures = {
        "prompts": len(rows),
        "meanBestWinRate": sum(best) / len(rows),
        "meanWorstWinRate": sum(worst) / len(rows),
        "tiedPrompts": sum(bool(all_tied(torch.tensor(row["win_rates"], dtype=torch.float64))) for row in rows),
    }
    for name, column in (("meanScore", "scores"), ("passRate", "passed")):
        values = [value for row in rows for value in row[column] or ()]
        if values:
            figures[name] = sum(values) / len(values)
    # What the oracle wants known beside its numbers: texts it cut, verdicts it could not read.
    return figures | sum((Counter(json.loads(row["counts"])) for row in rows), Counter())


def _score(oracle: Oracle, preference: Preference, prepared: PreparedPrompts, chunk: Artifact) -> list[Row]:
    import torch

    from sppo_trainer.objective import win_rates
    from sppo_trainer.preferences import all_pairs, probabilities

    groups = grouped(tables.read(chunk.path("responses.parquet")), f"responses in {_short(chunk.folder)}")
    comparisons = [comparison(prepared.rows[i], rows, all_pairs(len(rows))) for i, rows in groups.items()]
    scored = []
    for prompt_id, judgement in zip(groups, oracle.judge(comparisons), strict=True):
        table = probabilities(judgement, oracle.scale, temperature_of(preference))
        scored.append(
            {
                "prompt_id": prompt_id,
                "scale": oracle.scale,
                "values": judgement.values_KK.ravel().tolist(),
                "probabilities": table.ravel().tolist(),
                "win_rates": win_rates(torch.from_numpy(table)).tolist(),
                "scores": None if judgement.scores_K is None else judgement.scores_K.tolist(),
                "passed": None if judgement.passed_K is None else judgement.passed_K.tolist(),
                "counts": json.dumps(judgement.counts, sort_keys=True),
            }
        )
    return scored


def _short(folder: Path) -> str:
    return "/".join(folder.parts[-4:])


if __name__ == "__main__":
    main(ScoreConfig, score)
