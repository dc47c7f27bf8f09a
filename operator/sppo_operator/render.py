"""The configuration of a stage, as the trainer's parser expects it in SPPO_CONFIG."""

from __future__ import annotations

import json
from typing import Any

from sppo_operator.decide import Stage, Step
from sppo_operator.errors import UserError
from sppo_operator.spec import Run, section

CONTRACT_VERSION = 1
CONFIG_BYTES = 96 * 1024
"""Linux refuses a program whose environment has a variable of more than 128 KiB."""

SECTIONS = {
    Stage.PREPARE: ("iterations", "model", "prompts", "generation", "preference", "evaluation"),
    Stage.GENERATE: ("prompts", "generation"),
    Stage.SCORE: ("generation", "preference"),
    Stage.TRAIN: ("objective", "training"),
    Stage.EVALUATE: ("generation", "preference", "evaluation", "training"),
}


def stage_config(run: Run, step: Step, workspace: str, *, workers: int, processes_per_worker: int = 1) -> str:
    """The JSON document of one step; `workspace` is the folder that the stage sees, as an absolute path.

    Only a training has several processes in a worker. Raises UserError if the text is larger than CONFIG_BYTES.
    """
    config: dict[str, Any] = {
        "contract": CONTRACT_VERSION,
        "stage": step.stage.value,
        "run": {"namespace": run.namespace, "name": run.name, "digest": run.digest()},
        "workspace": workspace,
        "iteration": step.iteration,
        "seed": run.spec["seed"],
        "workers": workers,
    }
    config |= {name: section(run.spec, name) for name in SECTIONS[step.stage]}
    if step.stage is Stage.TRAIN:
        config["processesPerWorker"] = processes_per_worker
    if "evaluation" in config:
        del config["evaluation"]["parallel"]  # only `decide` needs it
    text = json.dumps(config, ensure_ascii=False, sort_keys=True)
    if (size := len(text.encode())) > CONFIG_BYTES:
        raise UserError(
            f"the configuration of {step} has {size} bytes, more than {CONFIG_BYTES}: shorten spec.model.systemPrompt, "
            "a judge's rubric, or the patterns and keys of verifier rules"
        )
    return text


def escape_for_kubelet(value: str) -> str:
    """The text that the kubelet turns back into `value`: it expands $(NAME) and $$ in a container's env."""
    return value.replace("$", "$$")
