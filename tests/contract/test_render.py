"""What the operator renders is what the trainer reads, value by value. How it arrives in a pod: test_pods.py."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from sppo_operator.decide import Stage, Step
from sppo_operator.errors import UserError
from sppo_operator.render import stage_config
from sppo_operator.spec import Run
from sppo_operator.validation import admit, parse_manifest
from sppo_trainer.config import EvaluateConfig, GenerateConfig, PrepareConfig, ScoreConfig, TrainConfig
from sppo_trainer.config_document import parse, section

EXAMPLES = sorted((Path(__file__).parents[2] / "manifests/examples").glob("*.yaml"))
STEPS = {
    Step(0, Stage.PREPARE): PrepareConfig,
    Step(0, Stage.EVALUATE): EvaluateConfig,
    Step(1, Stage.GENERATE): GenerateConfig,
    Step(2, Stage.SCORE): ScoreConfig,
    Step(3, Stage.TRAIN): TrainConfig,
    Step(3, Stage.EVALUATE): EvaluateConfig,
}
JUDGE = {"endpoint": "http://judge/v1", "model": "m", "rubric": "r", "apiKeySecret": {"name": "s", "key": "k"}}


def example(path: Path) -> dict[str, Any]:
    return admit(parse_manifest(path.read_text("utf-8")))


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
