"""Whatever is wrong with the input: exit 64..78, one sentence naming field, value and remedy, nothing half-written."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pipeline
import pyarrow.parquet as pq
import pytest
import tiny
from sppo_trainer import tables
from sppo_trainer.artifacts import Artifact

Break = Callable[[Path], None]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = pipeline.make_workspace(tmp_path_factory.mktemp("finished"))
    pipeline.run_all(root)
    return root


def refused(stage: str, root: Path, document: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence of a stage that refuses; checks the form of every refusal."""
    stage_folder = root / "default/tiny" / ("prepare" if stage == "prepare" else f"i1/{stage}")
    outcome = pipeline.run_inside(stage, document, root)
    printed = capsys.readouterr()
    assert 64 <= outcome.exit_code <= 78, outcome.result
    assert not (stage_folder / "manifest.json").exists()
    assert not list(stage_folder.glob("a-*")), "a refused stage leaves no payload"
    assert "Traceback" not in printed.out + printed.err
    assert "\n" not in outcome.error
    assert outcome.error in printed.err
    return outcome.error


def prompts(text: str) -> Break:
    return lambda root: (root / "data/prompts.jsonl").write_text(text, "utf-8") and None


def edit_model(name: str, edit: Callable[[Path], Any]) -> Break:
    return lambda root: edit(root / "models/tiny" / name) and None


def rows(count: int, repeat: int = 1) -> str:
    return "".join(json.dumps({"prompt": f"Say {n // repeat}."}) + "\n" for n in range(count))


def unlink(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def without_template(root: Path) -> None:
    shutil.rmtree(root / "models/tiny")
    tiny.save_model(root / "models/tiny", template=None)


def without_tokenizer(root: Path) -> None:
    for file in (root / "models/tiny").glob("*token*"):
        file.unlink()


def without_shard(root: Path) -> None:
    folder = root / "models/tiny"
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def untie(folder: Path) -> None:
    """The architecture asks for a head of its own, which the file does not have."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))


PREPARE: list[tuple[str, Break, str]] = [
    ("prompts missing", lambda root: unlink(root / "data/prompts.jsonl"), "prompts.source data/prompts.jsonl does not exist at .*: put it there"),
    ("prompts empty", prompts(""), "prompts.source data/prompts.jsonl has no rows: give a file"),
    ("bad line", prompts(rows(3) + "{oops\n" + rows(30)), "prompts.jsonl line 4 is not JSON .*: write one JSON object per line"),
    ("no column", prompts('{"question": "x"}\n'), "line 1 has no column 'prompt' but 'question': check prompts.column"),
    ("too few rows", prompts(rows(19)), "has 19 different prompts .0 duplicates were removed., but heldOut 4 . 2 x perIteration 8 needs 20: add prompts"),
    ("too few without duplicates", prompts(rows(30, repeat=2)), "has 15 different prompts .15 duplicates were removed.*needs 20"),
    ("prompt longer than maxTokens", prompts(rows(30) + json.dumps({"prompt": "x" * 1100}) + "\n"), "prompts.maxTokens is 1024, but the prompt in prompts.jsonl line 31 has .* tokens: raise it, or remove"),
    ("prompt longer than the context", prompts(rows(30) + json.dumps({"prompt": "x" * 240}) + "\n"), "generation.maxTokens is 12, and with the .* tokens of the prompt in prompts.jsonl line 31 exceeds the model's context of 256"),
    ("model missing", lambda root: shutil.rmtree(root / "models/tiny"), "model.source models/tiny does not exist at .*: put it there, or correct the path"),
    ("no config", edit_model("config.json", unlink), "model.source models/tiny has no config.json: give an ordinary Hugging Face model folder"),
    ("unknown architecture", edit_model("config.json", lambda path: path.write_text('{"model_type": "abacus"}')), "config.json cannot be used .*check model_type"),
    ("no tokenizer", without_tokenizer, "model.source models/tiny has no tokenizer that can be loaded .*: add tokenizer.json"),
    ("no chat template", without_template, "has a tokenizer without chat template: add chat_template.jinja"),
    ("no weights", edit_model("model.safetensors", unlink), r"has no \*.safetensors file: save the model with safetensors"),
    ("truncated weights", edit_model("model.safetensors", truncate), "model.safetensors is damaged or cut off .*: copy it again"),
    ("missing shard", without_shard, "lacks model-00002-of-00002.safetensors, which its index lists: copy it again"),
    ("missing weight", lambda root: untie(root / "models/tiny"), "model.source models/tiny lacks the weights lm_head.weight: give the whole"),
    ("damaged index", edit_model("model.safetensors.index.json", lambda path: path.write_text("{")), "model.safetensors.index.json is damaged .*: copy it again"),
    ("half a surrogate pair", prompts('{"prompt": "\\ud800"}\n'), "line 1: column 'prompt' holds .*: give a text"),
    ("template refuses", edit_model("chat_template.jinja", lambda path: path.write_text("{{ raise_exception('no user role') }}")), "chat template refuses the prompt in prompts.jsonl line 1 .no user role."),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), [case[1:] for case in PREPARE], ids=[case[0] for case in PREPARE])
def test_prepare(spoil: Break, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pipeline.make_workspace(tmp_path)
    spoil(root)
    error = refused("prepare", root, pipeline.config("prepare", 0, root), capsys)
    assert matches(message, error), error


CONFIG: list[tuple[str, str, Any, str]] = [
    ("unknown field", "generation.topQ", "1", "generation.topQ is unknown: remove it, or use one of chunkPrompts"),
    ("beta 0", "objective.beta", "0", "objective.beta is 0: use a number above 0"),
    ("beta as a number", "objective.beta", 0.05, "objective.beta is 0.05: give a decimal number as a string"),
    ("K = 1", "generation.samples", 1, "generation.samples is 1: use at least 2"),
    ("text for a number", "generation.samples", "5", 'generation.samples is "5": give an integer'),
    ("temperature 0", "generation.temperature", "0", "generation.temperature is 0: use a number above 0"),
    ("top-p above 1", "generation.topP", "1.5", "generation.topP is 1.5: use a number above 0 and up to 1"),
    ("engine", "generation.engine", "TGI", 'generation.engine is "TGI": use one of vLLM, Transformers'),
    ("constant missing", "objective.normalizer", "Constant", "objective.constant is None: the Constant normalizer needs"),
    ("estimated above eta 10", "objective.normalizer", "Estimated", "objective.normalizer is Estimated with eta 20"),
    ("learning rate", "training.learningRate", "-1", "training.learningRate is -1: use a number above 0"),
    ("held out", "prompts.heldOut", 1, "prompts.heldOut is 1: use at least 2"),
    ("missing field", "prompts.perIteration", None, "prompts.perIteration is missing: add it"),
    ("two kinds", "preference.judge", {"endpoint": "x", "model": "y", "rubric": "z"}, "preference.kind is Verifier: set the section of that name"),
    ("leaves the workspace", "model.source", "../secret", "model.source ../secret leaves the workspace"),
    ("no such scheme", "model.source", "ftpx://host/model", "model.source ftpx://host/model: ftpx:// is not available here"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "message"), [case[1:] for case in CONFIG], ids=[case[0] for case in CONFIG])
def test_configuration(path: str, value: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = path.split(".", 1)[0]
    stage = next(stage for stage in pipeline.STAGES if section in pipeline.SECTIONS[stage])
    root = pipeline.make_workspace(tmp_path)
    spec = pipeline.changed(pipeline.SPEC, path, value)
    error = refused(stage, root, pipeline.config(stage, 1 if stage != "prepare" else 0, root, spec), capsys)
    assert matches(message, error), error


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "SPPO_CONFIG is not JSON"),
        ("[]", "contract is None"),
        ('{"contract": 9}', "contract is 9: this trainer speaks 1"),
    ],
    ids=["empty", "list", "other contract"],
)
def test_a_document_that_is_none(document: str, message: str, tmp_path: Path) -> None:
    outcome = pipeline.run_inside("score", document, tmp_path)
    assert outcome.exit_code == 78
    assert matches(message, outcome.error), outcome.error


def before(finished: Path, to: Path, stage: str) -> Path:
    """A copy of the finished workspace in which `stage` of iteration 1 has not run."""
    root = to / "workspace"
    shutil.copytree(finished, root)
    for undone in pipeline.STAGES[pipeline.STAGES.index(stage) :]:
        shutil.rmtree(root / f"default/tiny/i1/{undone}", ignore_errors=True)
    return root


def replace_chunks(root: Path, stage: str, table: str, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Rewrite a stage's table as a stage with other numbers would have written it, digests included."""
    artifact = Artifact(root / f"default/tiny/i1/{stage}")
    manifest = artifact.require()
    schema = {"responses.parquet": tables.RESPONSES, "scores.parquet": tables.SCORES}[table]
    parts = {}
    for name in manifest.parts:
        chunk = artifact.chunk(int(name))
        old, edited = chunk.require(), [edit(row) for row in tables.read(chunk.path(table))]
        shutil.rmtree(chunk.folder)
        draft = Artifact(chunk.folder).draft()
        tables.write(edited, schema, draft.path(table))
        fields = {key: getattr(old, key) for key in ("stage", "iteration", "config", "inputs", "rows", "result")}
        parts[name] = draft.commit(type(old)(**fields), {}).content_digest
    (artifact.folder / "manifest.json").unlink()
    fields = {key: getattr(manifest, key) for key in ("stage", "iteration", "config", "inputs", "rows", "result")}
    Artifact(artifact.folder).draft().commit(type(manifest)(**fields, parts=parts), {})


def test_sampler_and_trainer_disagree(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = before(finished, tmp_path, "train")
    # What a sampler says that saw another template: other log-probabilities for the same tokens.
    replace_chunks(
        root, "generate", "responses.parquet", lambda row: row | {"logprobs": [x - 0.5 for x in row["logprobs"]]}
    )
    error = refused("train", root, pipeline.config("train", 1, root), capsys)
    assert matches(r"differ by 0.5 nats per token, more than 0.1: template, weights or RoPE differ; check", error), (
        error
    )


def test_an_iteration_of_ties(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = before(finished, tmp_path, "train")
    replace_chunks(root, "score", "scores.parquet", lambda row: row | {"win_rates": [0.5] * 3})
    error = refused("train", root, pipeline.config("train", 1, root), capsys)
    assert matches(
        "all 8 prompts of iteration 1 are ties, so there is nothing to learn: raise generation.samples", error
    )


def test_a_loss_that_becomes_nan(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = before(finished, tmp_path, "train")
    spec = pipeline.changed(pipeline.SPEC, "training.learningRate", "1e30")
    error = refused("train", root, pipeline.config("train", 1, root, spec), capsys)
    assert matches(
        r"training.learningRate is 1e\+30, and (at step 2 the loss is .*nan|after step 1 the weight .* is not finite).*: lower it",
        error,
    ), error


@pytest.mark.parametrize("stage", ["generate", "score", "train", "evaluate"])
def test_an_input_that_was_damaged(
    stage: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = before(finished, tmp_path, stage)
    pattern = {"generate": "prepare/a-*/prompts.parquet", "evaluate": "i1/train/a-*/model/model.safetensors"}
    for path in (root / "default/tiny").glob(pattern.get(stage, "i1/generate/chunks/00000/a-*/responses.parquet")):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    shutil.rmtree(root / "default/tiny/i1/evaluate", ignore_errors=True)
    error = refused(stage, root, pipeline.config(stage, 1, root), capsys)
    assert matches("does not match the checksum .* in its manifest: remove .*, and start the run again", error), error


def test_an_input_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pipeline.make_workspace(tmp_path)
    error = refused("generate", root, pipeline.config("generate", 1, root), capsys)
    assert matches(r"prepare has no manifest.json: run the stage that makes it first", error), error


def test_another_run_in_the_same_folder(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = before(finished, tmp_path, "score")
    document = pipeline.config("score", 1, root, run={"namespace": "default", "name": "tiny", "digest": "e" * 64})
    assert matches("belongs to a run with other immutable fields", refused("score", root, document, capsys))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 3 MB; making one takes root."""
    if os.geteuid() != 0:
        pytest.skip("a full disk needs root, to mount a small one")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], check=False).returncode != 0:
        pytest.skip("a full disk needs the right to mount a small one")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("stage", pipeline.STAGES)
def test_a_full_disk(
    stage: str, finished: Path, small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = before(finished, tmp_path, stage)
    if stage == "prepare":
        shutil.rmtree(root / "default/tiny/prepare")
    if stage == "evaluate":
        shutil.rmtree(root / "default/tiny/i0", ignore_errors=True)
    shutil.copytree(root, small_disk, dirs_exist_ok=True)
    fill(small_disk / "ballast")
    document = pipeline.config(stage, iteration_of(stage), small_disk)
    log = small_disk / "termination"  # as under `sppo run`: the result has no room either
    outcome = pipeline.run_inside(stage, document, small_disk, log=log)
    printed = capsys.readouterr()
    assert outcome.exit_code == 74, printed.err
    assert "Traceback" not in printed.out + printed.err
    assert matches("cannot take more data .*No space left on device.*: free space or enlarge it", printed.err)
    (small_disk / "ballast").unlink()
    again = pipeline.run_inside(stage, document, small_disk, log=log)
    assert again.exit_code == 0, again.result


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as ballast:
        while True:
            ballast.write(b"x" * 4096)


def iteration_of(stage: str) -> int:
    return 0 if stage == "prepare" else 1


def matches(pattern: str, sentence: str) -> bool:
    return re.search(pattern, sentence) is not None


def test_tables_keep_their_schema(finished: Path) -> None:
    chunk = Artifact(finished / "default/tiny/i1/generate").chunk(0)
    assert pq.read_schema(chunk.path("responses.parquet")).remove_metadata() == tables.RESPONSES
