"""tests/unit/bad_manifests.yaml, which the validation without a cluster and a real API server both judge."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

TABLE = yaml.safe_load((Path(__file__).parents[1] / "unit" / "bad_manifests.yaml").read_text("utf-8"))
GOOD: dict[str, Any] = TABLE["good"]


def merged(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    kept = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = merged(kept.get(key), value)
    return kept


def difference(old: Any, new: Any) -> Any:
    """The merge patch that makes `new` of `old`: what `kubectl apply` sends for an object that it created."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    changed = {
        key: difference(old[key], value) if key in old else value for key, value in new.items() if old.get(key) != value
    }
    return changed | dict.fromkeys(old.keys() - new.keys())


def refusal(case: dict[str, Any]) -> str:
    """What kubectl prints: one cause in the line, several in a list."""
    if "says" in case:
        return str(case["says"])
    return f'The SPPORun "good" is invalid: {listed(case["causes"])}'


def listed(causes: list[str]) -> str:
    return causes[0] if len(causes) == 1 else "".join(f"\n* {cause}" for cause in causes)
