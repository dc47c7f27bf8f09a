"""Training in several processes: the gradient, the losses and the checkpoints of one."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pipeline
import pytest
import tiny
import together
import torch
from numpy.linalg import norm
from sppo_trainer import tables
from sppo_trainer.artifacts import Artifact
from sppo_trainer.selection import Target
from sppo_trainer.train import Trained
from transformers import AutoModelForCausalLM

TRAINING: dict[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": 5,
    "precision": "Float32",
    "tokens_per_micro_batch": 60,
    "activation_checkpointing": False,
}
STEPS = 20
SPEC = pipeline.changed(pipeline.changed(pipeline.SPEC, "training.epochs", 10), "training.tokensPerMicroBatch", 80)

SELDOM = pipeline.changed(SPEC, "training.checkpointMinutes", 10)
SHORT = pipeline.changed(SPEC, "training.epochs", 2)


def ragged(count: int) -> list[Trained]:
    """Prompts of 1 to 30 tokens with 1 to 4 responses of 1 to 12 tokens."""
    chance = random.Random(0)

    def tokens(most: int) -> list[int]:
        return [chance.randrange(4, 260) for _ in range(chance.randint(1, most))]

    prompts = []
    for number in range(count):
        responses = [{"token_ids": tokens(12)} for _ in range(chance.randint(1, 4))]
        targets = [Target(k=k, role="other", win_rate=0.5, target=chance.uniform(-9, 9)) for k in range(len(responses))]
        prompts.append(Trained(prompt_id=str(number), prompt_ids=tokens(30), responses=responses, targets=targets))
    return prompts


@pytest.mark.parametrize(
    ("model", "training", "method"),
    [
        ({}, {}, "packed"),
        ({"tie_word_embeddings": False}, {"activation_checkpointing": True}, "packed"),
        ({}, {"lora": "LoRA", "activation_checkpointing": True}, "packed"),
        ({}, {"activation_checkpointing": True}, "plain"),
    ],
    ids=["packed", "activation checkpointing", "LoRA", "plain"],
)
def test_two_ranks_give_the_gradient_of_one(
    model: dict[str, Any], training: dict[str, Any], method: str, tmp_path: Path
) -> None:
    from sppo_trainer.config import LoRA

    folder = tiny.save_model(tmp_path / "model", **model)
    if "lora" in training:
        training = training | {"lora": LoRA(rank=3)}
    given = (
        folder,
        ragged(11),
        TRAINING | training,
        method,
    )  # steps of 5, 5 and 1 prompts: in the last, one rank has none
    [(_, expected)] = together.run(together.gradients, *given, 1, ranks=1)
    (_, found), (_, nothing) = together.run(together.gradients, *given, 2)
    assert nothing is None and len(expected) == 3
    worst = 0.0
    for (loss_1, grads_1), (loss_2, grads_2) in zip(expected, found, strict=True):
        assert loss_2 == pytest.approx(loss_1, rel=1e-5)
        assert grads_1.keys() == grads_2.keys()
        for name, gradient in grads_1.items():
            if gradient.any():  # of LoRA's A matrices it is 0 while B is
                worst = max(worst, float(norm(grads_2[name] - gradient) / norm(gradient)))
            else:
                assert not grads_2[name].any()
    print("worst relative error of a tensor's gradient:", worst)
    assert 0 < worst < 1e-5


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose next stage is the training of iteration 1."""
    root = pipeline.make_workspace(tmp_path_factory.mktemp("scored"))
    for stage, iteration in (("prepare", 0), ("generate", 1), ("score", 1)):
        outcome = pipeline.run_inside(stage, pipeline.config(stage, iteration, root), root)
        assert outcome.exit_code == 0, outcome.result
    return root


def copy(scored: Path, to: Path) -> Path:
    return Path(shutil.copytree(scored, to))


def train(root: Path, *, ranks: int = 2, spec: Mapping[str, Any] = SPEC, strike: Any = None) -> list[together.Result]:
    return together.run(together.train, root, spec, ranks, strike, ranks=ranks)


def trained(root: Path) -> Artifact:
    return Artifact(root / "default/tiny/i1/train")


def curve(root: Path, name: str = "loss") -> list[float]:
    values: list[float] = json.loads(trained(root).path("curves.json").read_text("utf-8"))[name]
    return values


def weights(root: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(trained(root).directory("model")).state_dict()


@pytest.fixture(scope="module")
def alone(scored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained by one process."""
    root = copy(scored, tmp_path_factory.mktemp("alone") / "workspace")
    assert pipeline.run_inside("train", pipeline.config("train", 1, root, SELDOM), root).exit_code == 0
    return root


@pytest.fixture(scope="module")
def both(scored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained by two ranks."""
    root = copy(scored, tmp_path_factory.mktemp("both") / "workspace")
    (code_0, (exit_0, result)), (code_1, (exit_1, other)) = train(root, spec=SELDOM)
    assert (code_0, exit_0, code_1, exit_1) == (0, 0, 0, 0)
    manifest = trained(root).require()
    assert result is not None and result["contentDigest"] == manifest.content_digest
    assert result["metrics"] == dict(manifest.result)
    assert other == {"metrics": {"worker": 0}}
    return root


def test_the_losses_of_two_ranks_are_those_of_one(alone: Path, both: Path) -> None:
    assert len(curve(alone)) == STEPS
    assert curve(both) == pytest.approx(curve(alone), rel=1e-3)
    print("loss after 20 steps:", curve(alone)[-1], curve(both)[-1], curve(both)[-1] / curve(alone)[-1] - 1)
    metrics_1, metrics_2 = trained(alone).require().result, trained(both).require().result
    assert metrics_2.keys() == metrics_1.keys()
    for name in metrics_1.keys() - {"tokensPerSecond"}:
        value = metrics_1[name]
        assert metrics_2[name] == pytest.approx(value, rel=1e-2, abs=1e-6), name


def test_the_policy_of_two_ranks_is_an_ordinary_model_folder(alone: Path, both: Path) -> None:
    files = {path.name for path in trained(both).directory("model").iterdir()}
    assert files == {path.name for path in trained(alone).directory("model").iterdir()}
    expected, found = weights(alone), weights(both)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=1e-3), name


def test_the_reference_of_two_ranks_is_complete(alone: Path, both: Path) -> None:
    expected, found = (tables.read(trained(root).sub("reference").path("reference.parquet")) for root in (alone, both))
    assert [(row["prompt_id"], row["k"]) for row in found] == [(row["prompt_id"], row["k"]) for row in expected]
    for one, two in zip(expected, found, strict=True):
        assert two["logprobs"] == pytest.approx(one["logprobs"], abs=1e-5)


def strike(rank: int, owner: str, call: str, time: int) -> dict[str, Any]:
    return {"rank": rank, "owner": f"sppo_trainer.{owner}", "call": call, "time": time}


@pytest.fixture(scope="module")
def undisturbed(scored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained by two ranks in four steps."""
    root = copy(scored, tmp_path_factory.mktemp("undisturbed") / "workspace")
    assert [code for code, _ in train(root, spec=SHORT)] == [0, 0]
    return root


@pytest.mark.parametrize(
    "killed",
    [
        strike(0, "checkpoints:Checkpoints", "_commit", 3),
        strike(1, "checkpoints:Checkpoints", "save", 2),
        strike(0, "train", "_pair_rows", 1),
    ],
    ids=["before a commit", "before a checkpoint", "before the end"],
)
def test_after_kill_9_of_a_rank_two_ranks_end_in_the_same_digest(
    killed: dict[str, Any], scored: Path, undisturbed: Path, tmp_path: Path
) -> None:
    root = copy(scored, tmp_path / "workspace")
    codes = [code for code, _ in train(root, spec=SHORT, strike=killed)]
    assert codes[killed["rank"]] == -signal.SIGKILL
    assert trained(root).manifest() is None
    assert [code for code, _ in train(root, spec=SHORT)] == [0, 0]
    assert trained(root).require().content_digest == trained(undisturbed).require().content_digest


def test_a_checkpoint_resumes_at_another_number_of_ranks(scored: Path, alone: Path, both: Path, tmp_path: Path) -> None:
    root = copy(scored, tmp_path / "workspace")
    chunks = trained(root).sub("checkpoint").folder / "chunks"
    train(root, ranks=1, strike=strike(0, "checkpoints:Checkpoints", "_commit", 6))
    assert sorted(path.parent.name for path in chunks.glob("*/manifest.json")) == ["00005"]
    train(root, ranks=2, strike=strike(0, "checkpoints:Checkpoints", "_commit", 8))
    assert sorted(path.parent.name for path in chunks.glob("*/manifest.json")) == ["00012"]
    assert [code for code, _ in train(root, ranks=1)] == [0]
    assert curve(root, "step") == [float(step) for step in range(1, STEPS + 1)]
    assert curve(root) == pytest.approx(curve(alone), rel=1e-3)
    assert curve(root)[:5] == curve(alone)[:5]


def test_two_ranks_train_lora_in_bf16(scored: Path, tmp_path: Path) -> None:
    spec = pipeline.changed(SHORT, "training.lora", {"rank": 4})
    spec = pipeline.changed(pipeline.changed(spec, "training.precision", "BFloat16"), "training.optimizer", "AdamW")
    spec = pipeline.changed(spec, "training.activationCheckpointing", True)
    one, two = copy(scored, tmp_path / "one"), copy(scored, tmp_path / "two")
    assert [code for code, _ in train(one, ranks=1, spec=spec)] == [0]
    train(two, spec=spec, strike=strike(1, "update", "sppo_loss", 2))
    assert [code for code, _ in train(two, spec=spec)] == [0, 0]
    assert curve(two) == pytest.approx(curve(one), rel=1e-2)
    expected, found = weights(one), weights(two)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=5e-3), name
    assert trained(two).require().result["weightsChanged"] > 0.5


def test_a_fault_of_the_user_ends_all_ranks_with_its_sentence(scored: Path, tmp_path: Path) -> None:
    root = copy(scored, tmp_path / "workspace")
    outcomes = [outcome for _, outcome in train(root, spec=pipeline.changed(SHORT, "training.learningRate", "1e30"))]
    assert [exit_code for exit_code, _ in outcomes] == [70, 70]
    assert outcomes[0][1] == outcomes[1][1]
    assert "training.learningRate is 1e+30" in outcomes[0][1]["error"]


def test_a_fault_that_only_rank_0_can_see_ends_all_ranks_with_its_sentence(scored: Path, tmp_path: Path) -> None:
    root = copy(scored, tmp_path / "workspace")
    folder = root / "default/tiny/i1/train/reference"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{", "utf-8")
    outcomes = [outcome for _, outcome in train(root)]
    assert [exit_code for exit_code, _ in outcomes] == [65, 65]
    assert outcomes[0][1] == outcomes[1][1]
    assert "manifest.json is not JSON" in outcomes[0][1]["error"]


def pod(root: Path, worker: int, port: int) -> subprocess.Popen[str]:
    """One of two workers, by the entry point that a pod runs."""
    document = pipeline.config("train", 1, root, SHORT, workers=2)
    variables = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    return pipeline.start("train", document, root / f"worker-{worker}.termination", worker, **variables)


def test_after_two_pods_were_told_to_end_one_of_two_processes_gets_the_same_digest(
    scored: Path, undisturbed: Path, tmp_path: Path
) -> None:
    root = copy(scored, tmp_path / "workspace")
    port = together.free_port()
    first, second = pod(root, 0, port), pod(root, 1, port)
    assert first.stdout and any("progress" in line for line in first.stdout), "training did not start"
    second.terminate()
    second.communicate(timeout=5)
    assert (second.returncode, pipeline.read_result(root / "worker-1.termination")) == (143, None)
    first.communicate(timeout=60)
    assert first.returncode == 1
    assert trained(root).manifest() is None

    again = pipeline.run("train", pipeline.config("train", 1, root, SHORT, processesPerWorker=2), root)
    assert again.exit_code == 0, again.output
    manifest = trained(root).require()
    assert again.result is not None and again.result["contentDigest"] == manifest.content_digest
    assert manifest.content_digest == trained(undisturbed).require().content_digest
    assert again.output.count('"done": 0') == 1, "rank 0 alone shows progress"
