"""What the stages left is checked before anybody relies on its shape."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sppo_operator.decide import Stage, Step
from sppo_operator.errors import DamagedError
from sppo_operator.results import Made, Results, WholeParts

SAMPLE = {"prompt": "p", "before": "b", "after": "a", "scoreBefore": 0.5, "scoreAfter": None}
TRAIN, EVALUATE = "i1/train", "i1/evaluate"
PREPARED, TRAINED = Step(0, Stage.PREPARE), Step(1, Stage.TRAIN)


def publish(folder: Path, stage: str, name: str, text: str) -> None:
    attempt = folder / stage / "a-1"
    attempt.mkdir(parents=True, exist_ok=True)
    (attempt / name).write_text(text)
    manifest = {"files": [{"name": name, "path": f"a-1/{name}"}], "result": {"steps": 2}, "contentDigest": "d"}
    (folder / stage / "manifest.json").write_text(json.dumps(manifest))


def test_what_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    results = Results(tmp_path)
    assert (results.curves(1), results.samples(1), results.policy(1), results.made(PREPARED)) == ({}, [], None, None)


def test_what_is_whole_comes_back(tmp_path: Path) -> None:
    publish(tmp_path, TRAIN, "curves.json", '{"loss": [1, null, NaN, 0.5]}')
    publish(tmp_path, EVALUATE, "samples.json", json.dumps([SAMPLE]))
    publish(tmp_path, "prepare", "provenance.json", '{"host": "h"}')
    results = Results(tmp_path)
    assert results.curves(1) == {"loss": [1, None, None, 0.5]}, "what is not finite leaves a gap"
    assert results.samples(1) == [SAMPLE]
    assert results.made(PREPARED) == Made(metrics={"steps": 2}, content_digest="d")
    assert (results.provenance(PREPARED), results.provenance(TRAINED)) == ({"host": "h"}, {})


def curves(text: str) -> Callable[[Path], None]:
    return lambda folder: publish(folder, TRAIN, "curves.json", text)


def samples(data: Any) -> Callable[[Path], None]:
    return lambda folder: publish(folder, EVALUATE, "samples.json", json.dumps(data))


def manifest(text: str) -> Callable[[Path], None]:
    return lambda folder: publish(folder, TRAIN, "curves.json", "{}") or write(folder / TRAIN / "manifest.json", text)


def write(path: Path, text: str) -> None:
    path.write_text(text)


DAMAGE: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "torn curves": (curves('{"step": [1, 2'), "curves", "curves.json is damaged"),
    "curve that is a number": (curves('{"step": 3}'), "curves", "curves.json is damaged"),
    "curve of words": (curves('{"step": ["one"]}'), "curves", "curves.json is damaged"),
    "infinite curve": (curves('{"step": [1e999]}'), "curves", "curves.json is damaged"),
    "curve beyond all numbers": (curves(f'{{"step": [1{"0" * 400}]}}'), "curves", "curves.json is damaged"),
    "curves in a list": (curves("[]"), "curves", "curves.json is damaged"),
    "torn manifest": (manifest('{"files'), "policy", "manifest.json is damaged"),
    "manifest without files": (manifest("{}"), "curves", "manifest.json is damaged"),
    "manifest that is a list": (manifest("[]"), "policy", "manifest.json is damaged"),
    "manifest of bad files": (manifest('{"files": [1]}'), "curves", "manifest.json is damaged"),
    "missing payload": (
        manifest('{"files": [{"name": "curves.json", "path": "a-2/curves.json"}]}'),
        "curves",
        r"curves.json is damaged \(No such file or directory\)",
    ),
    "samples in an object": (samples({}), "samples", "samples.json is damaged"),
    "sample without an answer": (samples([{"prompt": "p", "before": "b"}]), "samples", "samples.json is damaged"),
    "score in words": (samples([SAMPLE | {"scoreAfter": "good"}]), "samples", "samples.json is damaged"),
    "rank in words": (samples([SAMPLE | {"rank": "first"}]), "samples", "samples.json is damaged"),
}
MADE = '{"files": [], "contentDigest": "d", "result": %s}'


@pytest.mark.parametrize(("damage", "reader", "said"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], None], reader: str, said: str) -> None:
    damage(tmp_path)
    with pytest.raises(DamagedError, match=rf"{said}.*: restore it$"):
        getattr(Results(tmp_path), reader)(1)


NOTES = {
    "torn": "{",
    "list": "[]",
    "far future": '{"started": 1e18, "seconds": 1}',
    "no year": '{"started": 1099511627776}',
    "endless": '{"started": 1, "seconds": 1e999}',
    "backwards": '{"started": 1, "seconds": -1}',
    "time in words": '{"started": "today"}',
    "larger than any number": f'{{"seconds": 1{"0" * 400}}}',
}


@pytest.mark.parametrize("text", NOTES.values(), ids=NOTES)
def test_damaged_notes_of_an_attempt_are_named(tmp_path: Path, text: str) -> None:
    publish(tmp_path, "prepare", "provenance.json", text)
    with pytest.raises(DamagedError, match=r"provenance\.json is damaged"):
        Results(tmp_path).provenance(PREPARED)


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "removed": (lambda path: None, r"No such file or directory"),
    "torn": (lambda path: path.write_text("["), "no whole JSON"),
    "wrong type": (lambda path: path.write_text("3"), r"no (lists? of numbers|list of answers|notes of an attempt)"),
    "folder": (Path.mkdir, "no regular file"),
    "pipe": (os.mkfifo, "no regular file"),
}
PARTS = ["i1/train/a-1/curves.json", "i1/evaluate/a-1/samples.json", "i1/train/a-1/provenance.json"]


def parts_shown(parts: WholeParts) -> list[str]:
    made = parts.made(TRAINED)
    found = (parts.curves(1), parts.samples(1), made and made.provenance)
    return [name for name, part in zip(PARTS, found, strict=True) if part]


@pytest.mark.parametrize(("put", "cause"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("name", PARTS)
def test_one_bad_file_costs_its_own_part(tmp_path: Path, name: str, put: Callable[[Path], Any], cause: str) -> None:
    publish(tmp_path, TRAIN, "provenance.json", '{"host": "h"}')
    publish(tmp_path, TRAIN, "curves.json", '{"loss": [1]}')
    publish(tmp_path, EVALUATE, "samples.json", json.dumps([SAMPLE]))
    said: list[str] = []
    parts = WholeParts(Results(tmp_path), said.append)
    assert parts_shown(parts) == PARTS
    (tmp_path / name).unlink()
    put(tmp_path / name)
    assert parts_shown(parts) == [part for part in PARTS if part != name]
    if name.endswith("provenance.json") and cause.startswith("No such file"):
        assert parts.missing == said == [], "no manifest names it"
        return
    (sentence,) = parts.missing
    assert re.fullmatch(rf"{tmp_path / name} is damaged \({cause}\): restore it\.", sentence)
    assert said == [f"warning: not in the report: {sentence}"]


def test_a_bad_manifest_is_named_once(tmp_path: Path) -> None:
    publish(tmp_path, TRAIN, "curves.json", '{"loss": [1]}')
    manifest = tmp_path / TRAIN / "manifest.json"
    manifest.unlink()
    os.mkfifo(manifest)
    parts = WholeParts(Results(tmp_path), print)
    assert (parts.curves(1), parts.made(TRAINED)) == ({}, None)
    assert parts.missing == [f"{manifest} is damaged (no regular file): restore it."]


def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match=r"manifest\.json is damaged \(File name too long\)"):
        Results(tmp_path / ("x" * 300)).made(TRAINED)


@pytest.mark.parametrize("text", ["[]", "{}", MADE % "[]", MADE.replace('"d"', "1") % "{}"])
def test_a_manifest_that_says_nothing_about_its_making_is_named(tmp_path: Path, text: str) -> None:
    publish(tmp_path, TRAIN, "curves.json", "{}")
    (tmp_path / TRAIN / "manifest.json").write_text(text)
    with pytest.raises(DamagedError, match=r"manifest\.json is damaged"):
        Results(tmp_path).made(TRAINED)


def test_figures_are_numbers_and_names(tmp_path: Path) -> None:
    """A commit is a name; what is neither is nothing that a table could hold."""
    publish(tmp_path, TRAIN, "curves.json", "{}")
    (tmp_path / TRAIN / "manifest.json").write_text(MADE % '{"loss": NaN, "steps": 3, "modelRevision": "c0", "x": []}')
    found = Results(tmp_path).made(TRAINED)
    assert found is not None
    assert found.metrics == {"steps": 3, "modelRevision": "c0"}
