"""Stage `prepare`, once per run: bring model and prompts into the workspace, and check all that can be checked now.

Out: prompts.parquet (held-out rows first, then the pool in seeded order; every prompt rendered to token ids here and
nowhere else), model/ (the base policy), preference-model/ and evaluation-model/ where an oracle has one.

Deviations from the reference code (uclaml/SPPO@5e61c4e):
1. Prompts are rendered by the tokenizer's own chat template with the generation prompt; nothing is cut at a word.
2. The held-out split is fixed before training and never trained on; the reference samples it from the training rows.
3. Revisions are resolved to commits, and the template sees a pinned date, so that a later run sees the same tokens.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppo_trainer import tables
from sppo_trainer.artifacts import Draft, Manifest
from sppo_trainer.config import Model, PrepareConfig
from sppo_trainer.config_document import section
from sppo_trainer.errors import ConfigError, DataError, MissingError
from sppo_trainer.prompts import PINNED_DATE, Prompt, read_prompts, split, with_system_prompt, without_duplicates
from sppo_trainer.sources import fetch_model, fetch_prompts
from sppo_trainer.stage import Progress, Stage, main

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prepare(stage: Stage[PrepareConfig]) -> Manifest:
    with stage.artifact.draft() as draft:
        return _prepare(stage, stage.config, draft)


def _prepare(stage: Stage[PrepareConfig], config: PrepareConfig, draft: Draft) -> Manifest:
    with tempfile.TemporaryDirectory() as scratch:
        path, commit = fetch_prompts(
            config.prompts.source,
            config.prompts.revision,
            field="prompts.source",
            workspace=stage.workspace.root,
            scratch=Path(scratch) / "prompts",
        )
        rows = read_prompts(path, config.prompts)
    unique = without_duplicates(rows)
    _check_enough(unique, len(rows), config)
    _check_columns(unique, config)
    revisions = _fetch_models(config, stage.workspace.root, draft) | {"prompts": commit}

    token_ids = _render(unique, config, draft.path("model"))
    by_id = {prompt.prompt_id: prompt for prompt in unique}
    held_out, pool = split(list(by_id), held_out=config.prompts.held_out, seed=config.seed)
    tables.write(
        [
            _row(by_id[prompt_id], name, token_ids[prompt_id], config.model.system_prompt)
            for name, ids in (("held-out", held_out), ("pool", pool))
            for prompt_id in ids
        ],
        tables.PROMPTS,
        draft.path("prompts.parquet"),
    )
    return stage.commit(
        draft,
        config={
            "seed": config.seed,
            "model": section(config.model),
            "prompts": section(config.prompts),
            "revisions": {name: commit for name, commit in revisions.items() if commit},
        },
        inputs={},
        rows=len(unique),
        result={
            "rows": len(rows),
            "duplicates": len(rows) - len(unique),
            "heldOut": len(held_out),
            "pool": len(pool),
            "longestPrompt": max(map(len, token_ids.values())),
            **{f"{name}Revision": commit for name, commit in revisions.items() if commit},
        },
    )


def _fetch_models(config: PrepareConfig, workspace: Path, draft: Draft) -> dict[str, str | None]:
    """Copy and check the policy and the oracles' models; returns the commit of each."""
    from sppo_trainer.models import check_weights  # torch and transformers: after the prompts are known good

    wanted: dict[str, tuple[str, Model | None]] = {
        "model": ("model.source", config.model),
        "preference-model": ("preference.model.source", config.preference.model),
        "evaluation-model": (
            "evaluation.preference.model.source",
            config.evaluation.preference.model if config.evaluation.preference else None,
        ),
    }
    revisions: dict[str, str | None] = {}
    for name, (field, model) in wanted.items():
        if model is None:
            continue
        folder = draft.path(name)
        revisions[name.replace("-model", "Model")] = fetch_model(
            model.source, model.revision, field=field, workspace=workspace, to=folder
        )
        check_weights(folder, f"{field} {model.source}")
    return revisions


def _check_enough(unique: Sequence[Prompt], rows: int, config: PrepareConfig) -> None:
    prompts = config.prompts
    blocks = config.iterations if prompts.reuse == "Never" else 1
    needed = prompts.held_out + blocks * prompts.per_iteration
    if len(unique) < needed:
        raise DataError(
            f"prompts.source {prompts.source} has {len(unique)} different prompts ({rows - len(unique)} duplicates "
            f"were removed), but heldOut {prompts.held_out} + {blocks} x perIteration {prompts.per_iteration} needs "
            f"{needed}: add prompts, or lower these numbers"
        )


def _check_columns(prompts: Sequence[Prompt], config: PrepareConfig) -> None:
    """Rules and the columns that they name, while nothing has been computed yet: a dummy answer goes through them."""
    from sppo_trainer.preferences import Comparison, Response, load_oracle

    answer = Response(text="", token_count=1, finished=True)
    oracles = {"preference": config.preference, "evaluation.preference": config.evaluation.preference}
    for field, preference in oracles.items():
        if preference is not None and preference.verifier is not None:
            load_oracle(preference, field=field).judge(
                [
                    Comparison(messages=prompt.messages, columns=prompt.columns, responses=(answer,), pairs=())
                    for prompt in prompts
                ]
            )
    column = config.evaluation.group_column
    lacking = next((prompt for prompt in prompts if column is not None and column not in prompt.columns), None)
    if lacking is not None:
        raise MissingError(
            f"evaluation.groupColumn is {column!r}, which {lacking.where} lacks: add it, or leave it out"
        )


def _render(prompts: Sequence[Prompt], config: PrepareConfig, model_folder: Path) -> dict[str, list[int]]:
    """Token ids of every prompt, as the policy will see it: chat template, generation prompt, no second BOS."""
    from sppo_trainer.models import check_policy, context_length, load_tokenizer

    field = f"model.source {config.model.source}"
    context = context_length(model_folder, field)
    check_policy(model_folder, field)
    tokenizer = load_tokenizer(model_folder, field)
    progress = Progress(len(prompts), "prompts")
    rendered: dict[str, list[int]] = {}
    for done, prompt in enumerate(prompts):
        progress.update(done)
        token_ids = _render_one(
            tokenizer, with_system_prompt(prompt.messages, config.model.system_prompt), prompt.where
        )
        if len(token_ids) > config.prompts.max_tokens:
            raise DataError(
                f"prompts.maxTokens is {config.prompts.max_tokens}, but the prompt in {prompt.where} has "
                f"{len(token_ids)} tokens: raise it, or remove the prompt"
            )
        if len(token_ids) + config.generation.max_tokens > context:
            raise ConfigError(
                f"generation.maxTokens is {config.generation.max_tokens}, and with the {len(token_ids)} tokens of the "
                f"prompt in {prompt.where} exceeds the model's context of {context}: lower it, or remove the prompt"
            )
        rendered[prompt.prompt_id] = token_ids
    progress.update(len(prompts))
    return rendered


def _render_one(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], where: str) -> list[int]:
    from jinja2 import TemplateError

    try:
        rendered: Any = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            add_generation_prompt=True,
            return_dict=False,
            strftime_now=PINNED_DATE.strftime,
        )
    except TemplateError as error:
        raise DataError(
            f"the model's chat template refuses the prompt in {where} ({error}): change its roles, or leave out "
            "model.systemPrompt"
        ) from error
    return list(rendered)


def _row(prompt: Prompt, name: str, token_ids: list[int], system_prompt: str | None) -> dict[str, Any]:
    return {
        "prompt_id": prompt.prompt_id,
        "split": name,
        "messages": json.dumps(with_system_prompt(prompt.messages, system_prompt), ensure_ascii=False),
        "columns": json.dumps(prompt.columns, ensure_ascii=False, sort_keys=True, default=str),
        "token_ids": token_ids,
    }


if __name__ == "__main__":
    main(PrepareConfig, prepare)
