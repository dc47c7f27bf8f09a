"""From sampled responses to what an oracle is asked: shared by score and evaluate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sppo_trainer.config import Preference
from sppo_trainer.stage import Stage
from sppo_trainer.tables import Row

if TYPE_CHECKING:
    from sppo_trainer.preferences import Comparison, Oracle, Response


def open_oracle(stage: Stage[Any], preference: Preference, folder: str) -> Oracle:
    """The oracle, with the model that prepare copied to `folder`."""
    from sppo_trainer.preferences import load_oracle

    prepare = stage.workspace.stage(0, "prepare")
    field = {"preference-model": "preference", "evaluation-model": "evaluation.preference"}[folder]
    return load_oracle(preference, model_dir=prepare.directory(folder) if preference.model else None, field=field)


def comparison(prompt: Row, responses: Sequence[Row], pairs: Sequence[tuple[int, int]]) -> Comparison:
    from sppo_trainer.preferences import Comparison

    return Comparison(
        messages=tuple(json.loads(prompt["messages"])),
        columns=prompt["columns"],
        responses=tuple(map(_response, responses)),
        pairs=tuple(pairs),
    )


def temperature_of(preference: Preference) -> float:
    section = preference.pair_rm or preference.reward_model
    return section.temperature if section else 1.0


def _response(row: Row) -> Response:
    from sppo_trainer.preferences import Response

    return Response(text=row["text"], token_count=len(row["token_ids"]), finished=row["finish_reason"] == "stop")
