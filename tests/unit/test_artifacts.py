"""Artifacts are whole or absent, and say so when they are neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sppo_trainer.artifacts import Artifact, Manifest, Workspace, publish
from sppo_trainer.errors import DataError, MissingError, UserError


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "stage": "score",
        "iteration": 1,
        "config": {"seed": 0},
        "inputs": {},
        "rows": 2,
        "result": {},
    }
    return Manifest(**(fields | changes))


def commit(artifact: Artifact, text: str, **changes: Any) -> Manifest:
    draft = artifact.draft()
    draft.path("model/weights.txt").write_text(text)
    return draft.commit(manifest(**changes), {"host": "here"})


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return Artifact(tmp_path / "i1/score")


def test_nothing_is_visible_before_the_commit(artifact: Artifact) -> None:
    draft = artifact.draft()
    draft.path("table.txt").write_text("half")
    assert artifact.manifest() is None
    with pytest.raises(MissingError, match="run the stage that makes it first"):
        artifact.path("table.txt")


def test_a_committed_file_is_found_by_its_name(artifact: Artifact) -> None:
    commit(artifact, "one")
    assert artifact.path("model/weights.txt").read_text() == "one"
    assert artifact.directory("model").name == "model"
    with pytest.raises(MissingError, match=r"lists no file other.txt"):
        artifact.path("other.txt")
    with pytest.raises(MissingError, match="lists no folder other"):
        artifact.directory("other")


def test_the_first_of_two_writers_wins_and_the_other_leaves_nothing(artifact: Artifact) -> None:
    slow, fast = artifact.draft(), artifact.draft()
    for draft, text in ((slow, "slow"), (fast, "fast")):
        draft.path("table.txt").write_text(text)
    first = fast.commit(manifest(), {})
    second = slow.commit(manifest(), {})
    assert second.content_digest == first.content_digest
    assert artifact.path("table.txt").read_text() == "fast"
    assert [folder.name for folder in artifact.folder.glob("a-*")] == [fast.attempt]


def test_the_digest_covers_content_and_not_attempt_or_provenance(tmp_path: Path) -> None:
    one, two, other = (Artifact(tmp_path / name) for name in ("one", "two", "other"))
    assert commit(one, "same").content_digest == commit(two, "same").content_digest
    assert commit(other, "changed").content_digest != commit(two, "same").content_digest


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "train"},
        {"iteration": 2},
        {"config": {"seed": 1}},
        {"inputs": {"a": "b"}},
        {"rows": 3},
        {"parts": {"0": "x"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_part_of_the_content_changes_the_digest(change: dict[str, Any]) -> None:
    assert manifest(**change).content_digest != manifest().content_digest


def test_metrics_do_not_change_the_digest() -> None:
    assert manifest(result={"meanTokens": 3.0}).content_digest == manifest().content_digest


def damage(artifact: Artifact, edit: Any) -> Artifact:
    """The artifact as another process would open it after `edit` of its manifest."""
    path = artifact.folder / "manifest.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))
    return Artifact(artifact.folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data.update(rows=5), "it was changed"),
        (lambda data: data["files"][0].update(sha256="0" * 64), "it was changed"),
        (lambda data: data.update(schemaVersion=9), "schemaVersion 9"),
        (lambda data: data.pop("files"), "is no manifest"),
    ],
    ids=["rows", "checksum", "schema", "incomplete"],
)
def test_a_manifest_that_was_changed_is_refused(artifact: Artifact, edit: Any, message: str) -> None:
    commit(artifact, "one")
    with pytest.raises(DataError, match=message):
        damage(artifact, edit).require()


@pytest.mark.parametrize("content", ["", "onf", "one and more"], ids=["empty", "flipped", "longer"])
def test_a_payload_that_does_not_match_is_refused(artifact: Artifact, content: str) -> None:
    commit(artifact, "one")
    reader = Artifact(artifact.folder)
    next(artifact.folder.glob("a-*/model/weights.txt")).write_text(content)
    with pytest.raises(DataError, match="does not match the checksum"):
        reader.path("model/weights.txt")


def test_a_torn_manifest_is_refused(artifact: Artifact) -> None:
    commit(artifact, "one")
    path = artifact.folder / "manifest.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(DataError, match="is not JSON"):
        Artifact(artifact.folder).manifest()


def test_a_workspace_belongs_to_one_run(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, namespace="team", name="run")
    workspace.adopt("1" * 64)
    workspace.adopt("1" * 64)
    with pytest.raises(UserError, match=r"other immutable fields.*use another run name"):
        workspace.adopt("2" * 64)


def test_an_error_removes_the_payload_unless_it_is_committed(artifact: Artifact) -> None:
    with pytest.raises(RuntimeError), artifact.draft() as draft:
        draft.path("table.txt").write_text("half")
        raise RuntimeError
    assert not draft.folder.exists()
    with pytest.raises(RuntimeError), artifact.draft() as draft:
        draft.path("table.txt").write_text("whole")
        draft.commit(manifest(), {})
        raise RuntimeError
    assert artifact.path("table.txt").read_text() == "whole"


def test_publish_never_replaces(tmp_path: Path) -> None:
    assert publish(tmp_path / "x", "first") is True
    assert publish(tmp_path / "x", "second") is False
    assert (tmp_path / "x").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
