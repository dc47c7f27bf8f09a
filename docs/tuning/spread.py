"""How a prompt's win rate spreads with S answers each: python docs/tuning/spread.py DIR, a finished demo's workspace

Takes the first S of the held-out answers that are there, compares them as the stage evaluate does, and writes
spread.jsonl. Works with a Verifier, which costs nothing to ask again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import yaml
from sppo_operator.decide import Stage, Step
from sppo_operator.render import stage_config
from sppo_operator.spec import Run
from sppo_trainer.artifacts import Workspace
from sppo_trainer.comparisons import comparison
from sppo_trainer.config import ScoreConfig
from sppo_trainer.config_document import parse
from sppo_trainer.evaluate import bootstrap_interval
from sppo_trainer.preferences import cross_pairs, load_oracle, probabilities
from sppo_trainer.rollouts import grouped, rows_of
from sppo_trainer.tables import Row, read

SPREAD = Path(__file__).with_name("spread.jsonl")
SAMPLES = (1, 2, 4)


def main(folder: Path) -> None:
    run = Run.of(yaml.safe_load((folder / "run.yaml").read_text("utf-8")))
    config = parse(ScoreConfig, stage_config(run, Step(1, Stage.SCORE), str(folder), workers=1))
    workspace = Workspace(folder, namespace=config.run.namespace, name=config.run.name)
    rows = []
    for iteration in range(1, run.iterations + 1):
        for samples in SAMPLES:
            values = win_rates(workspace, config, iteration, samples)
            low, high = bootstrap_interval(values, [str(index) for index in range(len(values))], seed=0)
            rows.append(
                {
                    "iteration": iteration,
                    "samples": samples,
                    "prompts": len(values),
                    "winRate": round(float(np.mean(values)), 4),
                    "sd": round(float(np.std(values)), 4),
                    "halfWidth": round((high - low) / 2, 4),
                }
            )
    SPREAD.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def win_rates(workspace: Workspace, config: ScoreConfig, iteration: int, samples: int) -> list[float]:
    """Of each held-out prompt, against the base."""
    prompts = {
        row["prompt_id"]: row | {"columns": json.loads(row["columns"])}
        for row in read(workspace.stage(0, "prepare").path("prompts.parquet"))
    }
    new, old = (answers(workspace, policy) for policy in (iteration, 0))
    oracle = load_oracle(config.preference)
    judged = oracle.judge(
        [comparison(prompts[i], [*new[i][:samples], *old[i][:samples]], cross_pairs(samples, samples)) for i in new]
    )
    return [float(probabilities(verdict, oracle.scale)[:samples, samples:].mean()) for verdict in judged]


def answers(workspace: Workspace, policy: int) -> dict[str, list[Row]]:
    samples = workspace.stage(policy, "evaluate").sub("samples")
    return grouped(rows_of(samples.chunks(), "responses.parquet"), "samples")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
