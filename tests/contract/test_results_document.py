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
    return fetched_from(trainer.results(folder, "d1", samples) + "\n")


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
    steps = [float(step) for step in range(1, 1002)]
    publish(folder / "i2/train", {"curves.json": {"step": steps, "loss": list(range(1001))}})
    fetched = read(folder)
    assert fetched.curves(2) == {"step": steps[::3], "loss": list(range(0, 1001, 3))}
    assert fetched.missing == ("Of the curves of iteration 2, one step of 3 was read.",)


def test_curves_come_to_six_digits(folder: Path) -> None:
    publish(folder / "i2/train", {"curves.json": {"loss": [-1.23456789e-7], "gradNorm": [123456789.0]}})
    assert read(folder).curves(2) == {"loss": [-1.23457e-7], "gradNorm": [123457000.0]}


@pytest.mark.parametrize(("letter", "points"), [("é", 500), ("🙂", 250)], ids=["as ever", "halved"])
def test_the_largest_document_fits_into_a_log(folder: Path, letter: str, points: int) -> None:
    """The kubelet keeps 10 MiB of a container's log, and a line that has lost its beginning is no document."""
    names = ("step", "loss", "lossOverEta2", "logRatioBest", "logRatioWorst", "gradNorm", "learningRate")
    curves = {name: [-0.12345678901234567e-10] * 2000 for name in names}
    for number in range(2, 101):
        publish(folder / f"i{number}/train", {"curves.json": curves})
    samples = [SAMPLE | dict.fromkeys(("prompt", "before", "after"), letter * 9000)] * 32
    publish(folder / "i100/evaluate", {"samples.json": samples})
    document = trainer.results(folder, "d1", 100)
    assert document.isascii()
    assert len(document) <= 8 * 2**20
    fetched = fetched_from(document)
    assert (len(fetched.curves(100)["loss"]), len(fetched.samples(100))) == (points, 32)
    said = f"Of the curves of 99 iterations (2 to 100), one step of {2000 // points} was read."
    assert fetched.missing == (said,)
    assert " more characters" in fetched.samples(100)[0]["after"][-30:]


@pytest.mark.parametrize(
    ("file", "content"),
    [("curves.json", [1]), ("curves.json", {"loss": 1}), ("samples.json", {}), ("samples.json", ["answer"])],
)
def test_a_whole_file_of_another_shape_is_named(folder: Path, file: str, content: Any) -> None:
    stage = "train" if file == "curves.json" else "evaluate"
    publish(folder / f"i2/{stage}", {file: content})
    fetched = read(folder, samples=2)
    (missing,) = fetched.missing
    assert f"{file} has no list" in missing
    assert (fetched.curves(2), fetched.samples(2)) == ({}, [])
    assert len(fetched.curves(1)) == 1


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
