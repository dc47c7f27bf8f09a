"""What the operator renders is what the trainer reads: every stage of every example, through the trainer's parser."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from sppo_operator.decide import Stage, Step
from sppo_operator.errors import UserError
from sppo_operator.render import escape_for_kubelet, stage_config
from sppo_operator.spec import Run
from sppo_operator.validation import admit, parse_manifest
from sppo_trainer.config import (
    EvaluateConfig,
    GenerateConfig,
    PrepareConfig,
    ScoreConfig,
    TrainConfig,
    parse,
    section,
)

EXAMPLES = sorted((Path(__file__).parents[2] / "manifests/examples").glob("*.yaml"))
STEPS = {
    Step(0, Stage.PREPARE): PrepareConfig,
    Step(0, Stage.EVALUATE): EvaluateConfig,
    Step(1, Stage.GENERATE): GenerateConfig,
    Step(2, Stage.SCORE): ScoreConfig,
    Step(3, Stage.TRAIN): TrainConfig,
    Step(3, Stage.EVALUATE): EvaluateConfig,
}
SPECIAL = [
    "$",
    "$$",
    "$(HOME)",
    "$$(HOME)",
    "$(",
    r"back\slash",
    "quotes \"'`",
    "简短回答。",
    "line\nbreak\ttab",
    "\u2028",
]
JUDGE = {"endpoint": "http://judge/v1", "model": "m", "rubric": "r", "apiKeySecret": {"name": "s", "key": "k"}}


def example(path: Path) -> dict[str, Any]:
    return admit(parse_manifest(path.read_text("utf-8")))


def kubelet(value: str, environment: dict[str, str]) -> str:
    """How the kubelet expands a container's env: $(NAME) if the name is set, $$ to $, and all else stays.

    Kubernetes, third_party/forked/golang/expansion/expand.go
    """

    def expand(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return environment.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", expand, value)


@pytest.mark.parametrize("step", STEPS, ids=str)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_stage_of_every_example_is_understood(path: Path, step: Step) -> None:
    run = Run.of(example(path))
    config = parse(STEPS[step], stage_config(run, step, "/workspace", workers=run.workers(step.stage)))
    assert (config.stage, config.iteration, config.workspace) == (step.stage.value, step.iteration, "/workspace")
    assert config.workers == run.spec["stages"][step.stage.value].get("workers", 1)
    assert (config.run.name, config.run.digest, config.seed) == (run.name, run.digest(), run.spec["seed"])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_values_arrive(path: Path) -> None:
    """The trainer's defaults never stand in for the resource's: each section comes back as it was admitted."""
    run = Run.of(example(path))
    for step, cls in STEPS.items():
        sent = json.loads(stage_config(run, step, "/workspace", workers=1))
        received = section(parse(cls, json.dumps(sent)))
        assert comparable(received) == comparable(sent), step


def comparable(value: Any) -> Any:
    """Decimal strings as the floats that the trainer makes of them, and no empty lists, which mean the same as none."""
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items() if item != []}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


@pytest.mark.parametrize("text", SPECIAL, ids=ascii)
def test_special_characters_survive_the_kubelet(text: str) -> None:
    resource = example(EXAMPLES[0])
    resource["spec"]["model"]["systemPrompt"] = text
    sent = stage_config(Run.of(resource), Step(0, Stage.PREPARE), "/workspace", workers=1)
    arrived = kubelet(escape_for_kubelet(sent), {"HOME": "/root"})
    assert parse(PrepareConfig, arrived).model.system_prompt == text


@pytest.mark.parametrize("text", ["$(HOME)", "$$"])
def test_without_the_escape_the_kubelet_would_change_them(text: str) -> None:
    assert kubelet(text, {"HOME": "/root"}) != text


def test_a_configuration_that_no_environment_holds_is_refused() -> None:
    resource = example(EXAMPLES[0])
    keys = [f"{number:0128}" for number in range(64)]
    rules = [{"kind": "JSON", "keys": keys, "weight": "1", "tolerance": "0", "unit": "Words"}] * 32
    resource["spec"]["preference"] = {"kind": "Verifier", "verifier": {"rules": rules}}
    with pytest.raises(UserError, match=r"configuration of prepare has \d{6} bytes, more than 98304: shorten"):
        stage_config(Run.of(admit(resource)), Step(0, Stage.PREPARE), "/workspace", workers=1)


def test_secrets_and_the_operators_own_fields_stay_with_the_operator() -> None:
    resource = example(EXAMPLES[0])
    resource["spec"]["model"]["tokenSecret"] = {"name": "hub-token", "key": "token"}
    resource["spec"]["preference"] = {"kind": "Judge", "judge": copy.deepcopy(JUDGE)}
    resource["spec"]["evaluation"]["preference"] = {"kind": "Judge", "judge": copy.deepcopy(JUDGE)}
    run = Run.of(resource)
    for step, cls in STEPS.items():
        sent = stage_config(run, step, "/workspace", workers=1)
        parse(cls, sent)
        assert "Secret" not in sent
        assert "parallel" not in sent
