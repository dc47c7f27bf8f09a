"""run.yaml reads back as what was written, for us and for kubectl."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sppo_operator import store as module
from sppo_operator.errors import BusyError, DamagedError, MissingError
from sppo_operator.store import LOCK_FILE, LOCKS, RunFile, holder, locked, replace_file
from sppo_operator.validation import parse_manifest

TIME = "2026-01-31T12:00:00Z"
RESOURCE: dict[str, Any] = {
    "apiVersion": "sppo.dev/v1alpha1",
    "kind": "SPPORun",
    "metadata": {"name": "demo", "namespace": "lab", "generation": 1, "creationTimestamp": TIME},
    "spec": {
        "model": {"source": "models/base"},
        "prompts": {"source": "prompts.jsonl", "perIteration": 10, "heldOut": 8},
        "preference": {"kind": "Verifier", "verifier": {"rules": [{"kind": "Finished"}]}},
        "objective": {"beta": "0.05"},
        "training": {"learningRate": "5e-7"},
        "workspace": {"claimName": "y"},
    },
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
SPECIAL = st.sampled_from(
    ["5e-7", "1_0", "0x1F", "1:30", "y", "NO", "~", "null", "2026-01-31", "=", ".5", "+1", "-", ""]
)


@given(text=TEXT | SPECIAL)
def test_text_stays_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    resource = copy.deepcopy(RESOURCE)
    resource["spec"]["model"]["systemPrompt"] = text
    file = RunFile(tmp_path_factory.mktemp("run"))
    file.write(resource)
    assert RunFile(file.path.parent).read() == resource
    assert parse_manifest(file.path.read_text("utf-8")) == resource, "kubectl would read something else"


def test_only_a_change_is_written(tmp_path: Path) -> None:
    file = RunFile(tmp_path)
    assert file.read() is None
    assert [file.write(RESOURCE), file.write(copy.deepcopy(RESOURCE))] == [True, False]
    again = RunFile(tmp_path)
    again.read()
    assert [again.write(RESOURCE), again.write(RESOURCE | {"status": {"phase": "Training"}})] == [False, True]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.yaml"]


def test_a_link_goes_on_leading_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link, file = tmp_path / "link", tmp_path / "elsewhere" / "file"
    link.symlink_to(file)
    for text in ("new", "old"):
        replace_file(link, text)
        assert (link.is_symlink(), file.read_text()) == (True, text)
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_an_error_names_the_file_and_not_the_draft(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "file"
    with pytest.raises(FileNotFoundError) as failed:
        replace_file(file, "text")
    assert failed.value.filename == str(file)


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        replace_file(pipe, "text")
        assert os.read(reader, 100) == b"text"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_equal_parts_are_written_out(tmp_path: Path) -> None:
    shared = {"name": "same"}
    RunFile(tmp_path).write(RESOURCE | {"metadata": {"labels": shared, "annotations": shared}})
    assert "&" not in (tmp_path / "run.yaml").read_text()


def with_stage(**stage: Any) -> str:
    stages = [{"stage": "prepare", "state": "Running", "startTime": TIME} | stage]
    return yaml.safe_dump({**RESOURCE, "status": {"iterations": [{"number": 0, "stages": stages}]}})


DAMAGED = {
    "empty": "",
    "list": "[]",
    "torn": "kind: [",
    "nested without end": "[" * 5000,
    "status that the schema refuses": yaml.safe_dump({**RESOURCE, "status": {"iterations": [{"number": "one"}]}}),
    "win rate without its mean": yaml.safe_dump(
        {**RESOURCE, "status": {"iterations": [{"number": 0, "winRate": {"base": {"low": "0.4"}}}]}}
    ),
    "attempt without its outcome": with_stage(attempts=[{"number": 1, "startTime": TIME}]),
    "attempt without its start": with_stage(attempts=[{"number": 1, "outcome": "Running"}]),
    "time that is none": with_stage(
        attempts=[{"number": 1, "outcome": "Suspended", "startTime": "noon", "finishTime": TIME}]
    ),
    "unquoted date out of range": "status: {startTime: 2026-13-45}",
    "somebody's manifest": yaml.safe_dump({**RESOURCE, "metadata": {"name": "demo"}}),
    "generation in words": yaml.safe_dump({**RESOURCE, "metadata": RESOURCE["metadata"] | {"generation": "first"}}),
    "name that leaves the workspace": yaml.safe_dump(
        {**RESOURCE, "metadata": RESOURCE["metadata"] | {"name": "../../etc"}}
    ),
    "annotations as a list": yaml.safe_dump({**RESOURCE, "metadata": RESOURCE["metadata"] | {"annotations": ["a"]}}),
}


def test_a_stage_under_way_is_no_damage(tmp_path: Path) -> None:
    text = with_stage(attempts=[{"number": 1, "outcome": "Running", "startTime": TIME}])
    (tmp_path / "run.yaml").write_text(text)
    assert RunFile(tmp_path).read() == yaml.safe_load(text)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").mkdir()
    with pytest.raises(MissingError, match=r"run\.yaml cannot be read \(Is a directory\): mend that"):
        RunFile(tmp_path).read()


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(DamagedError, match=r"run\.yaml is damaged: restore it, or remove it"):
        RunFile(tmp_path).read()


def test_a_folder_has_one_holder_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(BusyError, match="is in use by process"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_the_holder_is_known_before_the_file_names_it(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with locked(tmp_path):
        (tmp_path / LOCK_FILE).write_text("")
        assert holder(tmp_path) == os.getpid()
    assert holder(tmp_path) is None


@pytest.mark.parametrize(
    ("named", "holds"), [("1", False), (str(os.getpid()), True)], ids=["another's", "the holder's"]
)
def test_a_lock_on_another_device_counts_only_if_the_file_names_its_process(
    named: str, holds: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(tmp_path):
        inode = (tmp_path / LOCK_FILE).stat().st_ino
        elsewhere = [
            line.replace(line.split()[5], f"fe:fe:{inode}")
            for line in LOCKS.read_text().splitlines()
            if line.endswith(f":{inode} 0 EOF")
        ]
        assert elsewhere
        (tmp_path / LOCK_FILE).write_text(named)
    (tmp_path / "locks").write_text("\n".join(elsewhere))
    monkeypatch.setattr(module, "LOCKS", tmp_path / "locks")
    assert holder(tmp_path) == (os.getpid() if holds else None)


def test_without_the_systems_list_nobody_holds_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCKS", tmp_path / "missing")
    with locked(tmp_path):
        assert holder(tmp_path) is None
