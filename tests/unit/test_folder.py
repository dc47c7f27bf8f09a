"""What a folder says of a run: where its model and its report are now, not where they were when it ran."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from sppo_operator.commands.explain import closing_lines
from sppo_operator.commands.folder import FolderSource
from sppo_operator.store import RunFile
from sppo_operator.target import FolderTarget
from told import full_records, resource

MODEL = "lab/demo/i2/train/a-1/model"
MANIFEST = {"files": [{"name": "model/config.json", "path": "a-1/model/config.json"}]}


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """The workspace of a run that ran elsewhere."""
    of = resource(full_records(), report="/old/report.html")
    of["metadata"] = of["metadata"] | {"generation": 1, "creationTimestamp": "2026-01-31T12:00:00Z"}
    of["status"]["iterations"][2]["policy"] = f"/old/{MODEL}"
    RunFile(tmp_path).write(of)
    (tmp_path / MODEL).mkdir(parents=True)
    (tmp_path / MODEL / "config.json").write_text("{}")
    (tmp_path / "lab/demo/i2/train/manifest.json").write_text(json.dumps(MANIFEST))
    (tmp_path / "report.html").write_text("")
    return tmp_path


def told(folder: Path) -> list[str]:
    source = FolderSource(FolderTarget(folder=folder), "sppo")
    return closing_lines(source, asyncio.run(source.resource()))


def test_a_workspace_that_was_moved_is_described_where_it_is(moved: Path) -> None:
    assert told(moved) == [f"Model of iteration 2: {moved}/{MODEL}", f"Report: {moved}/report.html"]


def test_what_is_gone_is_said_to_be(moved: Path) -> None:
    (moved / MODEL).rename(moved / "elsewhere")
    (moved / "report.html").unlink()
    assert told(moved) == [
        f"Model of iteration 2: {moved}/{MODEL} (gone)",
        f"Report: {moved}/report.html (gone: sppo report {moved} writes it again)",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "gone: {train} has no finished training"),
        ("{", "not known: {train}/manifest.json is damaged (no whole JSON): restore it"),
    ],
    ids=["removed", "torn"],
)
def test_a_training_without_a_manifest_has_no_model(moved: Path, text: str | None, said: str) -> None:
    train = moved / "lab/demo/i2/train"
    (train / "manifest.json").unlink()
    if text is not None:
        (train / "manifest.json").write_text(text)
    assert told(moved)[0] == f"Model of iteration 2: {said.format(train=train)}"
