"""Write the measured tables into docs/tuning.md: python docs/tuning/tables.py docs/tuning.md

Each stands between `<!-- measured: NAME -->` and `<!-- end -->`. Intervals are 95 % bootstrap intervals over the
prompts of all seeds together; differences are taken prompt by prompt, since the runs of one seed share prompts and base
answers.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measure import SETTINGS, results
from sppo_trainer.evaluate import bootstrap_interval
from spread import SPREAD

HEADS = (
    "win rate: seeds 1, 2",
    "minus the demo's: both",
    "seeds 1, 2",
    "pass rate",
    "tokens",
    "KL",
    "log-ratio of best",
    "of worst",
)
Rows = list[dict[str, Any]]
"""Of one setting and iteration, in order of the seeds."""


def main(file: Path) -> None:
    text = file.read_text("utf-8")
    for name, measured in TABLES.items():
        parts = re.split(rf"(?s)(?<=<!-- measured: {name} -->\n).*?(?=<!-- end -->)", text, maxsplit=1)
        assert len(parts) == 2, f"{file} has no table {name}"
        text = measured().join(parts)
    file.write_text(text, "utf-8")


def trust_region() -> str:
    """Two iterations at each eta."""
    heads = ["beta", "eta", "iteration", *HEADS, "target reached by the best"]
    lines = []
    for setting in sorted((s for s in SETTINGS if s.iterations == 2), key=lambda s: eta_of(s.name)):
        for iteration in (1, 2):
            rows = rows_at(setting.name, iteration)
            lines.append(
                [
                    f"{1 / eta_of(setting.name):g}",
                    f"{eta_of(setting.name):g}",
                    str(iteration),
                    *cells(rows, rows_at("demo", iteration)),
                    f"{mean(rows, 'attainedBest'):.1%}",
                ]
            )
    return table(heads, lines)


def one_iteration() -> str:
    """Every other setting, after one iteration."""
    lines = [[setting.name, *cells(rows_at(setting.name, 1), rows_at("demo", 1))] for setting in SETTINGS]
    return table(["setting", *HEADS], lines)


def evaluation_size() -> str:
    """The interval's half width, at the size measured and at others."""
    sizes = (100, 300, 1000)
    rows = [json.loads(line) for line in SPREAD.read_text("utf-8").splitlines()]
    heads = ["iteration", "answers S", "win rate", "sd over prompts", f"half width, n = {rows[0]['prompts']} measured"]
    return table(
        [*heads, *(f"n = {size} by the formula" for size in sizes)],
        [
            [
                str(row["iteration"]),
                str(row["samples"]),
                f"{row['winRate']:.2f}",
                f"{row['sd']:.2f}",
                f"{row['halfWidth']:.3f}",
                *(f"{1.96 * row['sd'] / math.sqrt(size):.3f}" for size in sizes),
            ]
            for row in rows
        ],
    )


TABLES: dict[str, Callable[[], str]] = {
    "trust region": trust_region,
    "one iteration": one_iteration,
    "evaluation size": evaluation_size,
}


def eta_of(name: str) -> float:
    return 20.0 if name == "demo" else 1 / float(name.removeprefix("beta "))


def cells(rows: Rows, demo: Rows) -> list[str]:
    by_seed = differences(rows, demo)
    together = [value for values in by_seed for value in values]
    low, high = interval(together)
    compared = [f"{np.mean(together):+.2f} [{low:+.2f}, {high:+.2f}]", ", ".join(f"{np.mean(v):+.2f}" for v in by_seed)]
    return [
        ", ".join(f"{row['winRateBase']:.2f}" for row in rows),
        *(["", ""] if rows == demo else compared),
        f"{mean(rows, 'passRate'):.3f}",
        f"{mean(rows, 'meanTokens'):.1f}",
        f"{mean(rows, 'klPerResponse'):.2f}",
        f"{mean(rows, 'logRatioBest'):+.2f}",
        f"{mean(rows, 'logRatioWorst'):+.2f}",
    ]


def rows_at(name: str, iteration: int) -> Rows:
    rows = [row for row in results() if (row["setting"], row["iteration"]) == (name, iteration)]
    return sorted(rows, key=lambda row: row["seed"])


def mean(rows: Rows, figure: str) -> float:
    return float(np.mean([row[figure] for row in rows]))


def differences(rows: Rows, demo: Rows) -> list[list[float]]:
    """By seed and prompt."""
    return [
        [new - old for new, old in zip(row["winRates"], before["winRates"], strict=True)]
        for row, before in zip(rows, demo, strict=True)
    ]


def interval(values: Sequence[float]) -> tuple[float, float]:
    return bootstrap_interval(values, [str(index) for index in range(len(values))], seed=0)


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
