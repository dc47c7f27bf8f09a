"""What a report reads of a claim: the trainer's document of a workspace is what the operator takes for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sppo_operator.commands.reader import Fetched, UnreadError, fetched_from
from sppo_operator.decide import Stage, Step
from sppo_operator.results import Results, WholeParts
from sppo_operator.summary import shortened
from sppo_trainer import results as trainer
from sppo_trainer.artifacts import Artifact, Manifest

SAMPLE: dict[str, Any] = {
    "prompt": "\ud800\u202e",
    "before": "b",
    "after": "a" * 9000,
    "scoreBefore": None,
    "scoreAfter": 0.5,
    "winRate": 1.0,
    "rank": 1,
}
STEPS = {"prepare": Step(0, Stage.PREPARE), "i1/train": Step(1, Stage.TRAIN), "i1/evaluate": Step(1, Stage.EVALUATE)}


def publish(folder: Path, files: dict[str, Any], **result: Any) -> Artifact:
    artifact = Artifact(folder)
    manifest = Manifest(stage=folder.name, iteration=1, config={}, inputs={}, rows=1, result=result)
    with artifact.draft() as draft:
        for name, data in files.items():
            draft.path(name).write_text(json.dumps(data))
        draft.commit(manifest, {"host": "h", "seconds": 1.5})
    return artifact


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_text('{"digest": "d1"}')
    publish(tmp_path / "prepare", {}, heldOut=8, modelRevision="c0")
    publish(tmp_path / "i1/train", {"curves.json": {"loss": [1.0, float("nan"), 3]}}, steps=3)
    publish(tmp_path / "i1/evaluate", {"samples.json": [SAMPLE]}, winRateBase=0.6)
    return tmp_path


def read(folder: Path, samples: int | None = 1) -> Fetched:
    """As a pod's log brings it."""
    return fetched_from(json.dumps(trainer.results(folder, "d1", samples)) + "\n")


def test_a_pod_reads_what_the_folder_itself_says(folder: Path) -> None:
    fetched, there = read(folder), WholeParts(Results(folder), print)
    assert fetched.missing == ()
    assert fetched.curves(1) == there.curves(1) == {"loss": [1.0, None, 3]}
    for step in STEPS.values():
        assert fetched.made(step) == there.made(step) is not None
    (sample,) = fetched.samples(1)
    assert sample == SAMPLE | {"after": shortened(SAMPLE["after"])}
    assert shortened(sample["after"]) == sample["after"], "the page does not cut again what was cut here"


@pytest.mark.parametrize("wanted", [None, 2])
def test_only_the_wanted_answers_are_sent(folder: Path, wanted: int | None) -> None:
    assert read(folder, wanted).samples(1) == []


def test_long_curves_are_thinned_and_say_so(folder: Path) -> None:
    publish(folder / "i2/train", {"curves.json": {"loss": list(range(1001))}})
    fetched = read(folder)
    assert fetched.curves(2)["loss"] == list(range(0, 1001, 3))
    assert fetched.missing == ("Of the curves of iteration 2, one step of 3 was read.",)


def test_the_largest_document_fits_into_a_log(folder: Path) -> None:
    """The kubelet keeps 10 MiB of a container's log."""
    names = ("step", "loss", "lossOverEta2", "logRatioBest", "logRatioWorst", "gradNorm", "learningRate")
    curves = {name: [0.12345678901234567] * 2000 for name in names}
    for number in range(2, 101):
        publish(folder / f"i{number}/train", {"curves.json": curves})
    assert len(json.dumps(trainer.results(folder, "d1", 1))) < 9 * 2**20


def test_a_damaged_file_costs_its_own_figures(folder: Path) -> None:
    next((folder / "i1/train").glob("a-*/curves.json")).write_text("{}")
    fetched = read(folder)
    assert fetched.curves(1) == {}
    assert len(fetched.samples(1)) == 1
    (missing,) = fetched.missing
    assert "curves.json does not match the checksum" in missing


@pytest.mark.parametrize(
    ("owner", "says"),
    [
        (None, "run.json is not there: no stage of the run has begun"),
        ('{"digest": "d2"}', "belongs to a run with other immutable fields"),
        ("{", "run.json is damaged"),
    ],
)
def test_only_the_run_itself_is_read(
    folder: Path, owner: str | None, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "run.json").unlink()
    if owner is not None:
        (folder / "run.json").write_text(owner)
    monkeypatch.setattr("sys.argv", ["results", str(folder), "--digest", "d1"])
    with pytest.raises(SystemExit) as ended:
        trainer.main()
    assert ended.value.code in (65, 66)
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("log", ["", "[]", '{"results": 0}', '{"results": 1'])
def test_what_is_no_document_is_refused(log: str) -> None:
    with pytest.raises(UnreadError):
        fetched_from(log)
