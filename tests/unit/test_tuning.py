"""The measurements in docs/tuning.md: complete, of valid runs, and shown as they were taken."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sppo_operator.validation import admit

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs/tuning.md"


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "docs/tuning")
    import measure

    return measure


def test_every_setting_is_a_valid_run(measure: Any) -> None:
    for setting in measure.SETTINGS:
        admit(measure.manifest(setting, seed=1), None)


def test_every_setting_was_measured_once_with_every_seed(measure: Any) -> None:
    measured = [(row["setting"], row["seed"], row["iteration"]) for row in measure.results()]
    assert sorted(measured) == sorted(
        (setting.name, seed, iteration)
        for setting in measure.SETTINGS
        for seed in measure.SEEDS
        for iteration in range(1, setting.iterations + 1)
    )


def test_the_tables_are_those_of_the_results(tmp_path: Path) -> None:
    copy = tmp_path / "tuning.md"
    text = DOC.read_text("utf-8")
    copy.write_text(re.sub(r"(?s)(<!-- measured: .*? -->\n).*?(?=<!-- end -->)", r"\1", text), "utf-8")
    assert copy.read_text("utf-8") != text
    subprocess.run([sys.executable, ROOT / "docs/tuning/tables.py", copy], check=True)
    assert copy.read_text("utf-8") == text
