"""What the operator reads from an SPPORun whose defaults are filled in: identity, plan, digest and names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sppo_operator.decide import Stage, Step

# The fields that decide what a run computes; the rest may change while it runs.
IMMUTABLE = ("model", "prompts", "preference", "objective", "generation", "training", "evaluation", "seed")
# Parts of those sections that change no artifact, or that only the operator uses.
FREE = {"training": ("checkpointMinutes",), "evaluation": ("parallel",)}
SECRETS = ("tokenSecret", "apiKeySecret")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One SPPORun, as `validation.admit` returned it."""

    namespace: str
    name: str
    generation: int
    retry: str
    """The annotation sppo.dev/retry: another value lets a failed run go on."""
    spec: Mapping[str, Any]

    @classmethod
    def of(cls, resource: Mapping[str, Any]) -> Run:
        metadata = resource["metadata"]
        return cls(
            namespace=metadata.get("namespace", "default"),
            name=metadata["name"],
            generation=metadata.get("generation", 1),
            retry=metadata.get("annotations", {}).get("sppo.dev/retry", ""),
            spec=resource["spec"],
        )

    @property
    def iterations(self) -> int:
        return int(self.spec["iterations"])

    @property
    def retries(self) -> int:
        return int(self.spec["retries"]["limit"])

    @property
    def parallel_evaluation(self) -> bool:
        return bool(self.spec["evaluation"]["parallel"])

    def workers(self, stage: Stage) -> int:
        return int(self.spec.get("stages", {}).get(stage.value, {}).get("workers", 1))

    def deadline_seconds(self, stage: Stage) -> float:
        """How long an attempt may run."""
        return float(self.spec["stages"][stage.value].get("deadlineSeconds", "inf"))

    def cluster_fields(self) -> list[str]:
        """The fields that were set and say something to a cluster only."""
        fields = [f"spec.{name}" for name in ("image", "queue") if name in self.spec]
        fields += ["spec.workspace.uri"] if "uri" in self.spec["workspace"] else []
        for stage, settings in self.spec["stages"].items():
            fields += [f"spec.stages.{stage}.{name}" for name, value in settings.items() if _is_for_pods(name, value)]
        return fields

    def job_name(self, step: Step, attempt: int) -> str:
        """The address of an attempt: a Job of this name exists once in the life of a run."""
        return f"{self.name}-i{step.iteration}-{step.stage.value}-a{attempt}"

    def digest(self) -> str:
        """Digest of the immutable fields: equal digests may share a workspace folder."""
        immutable = {name: section(self.spec, name) for name in IMMUTABLE if name in self.spec}
        for name, free in FREE.items():
            for field in free:
                immutable[name].pop(field, None)
        immutable["evaluation"]["against"].sort()  # a set
        text = json.dumps(immutable, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _is_for_pods(name: str, value: Any) -> bool:
    return name == "template" or (name in ("workers", "processesPerWorker") and value > 1)


def section(spec: Mapping[str, Any], name: str) -> Any:
    """A copy of one section of the spec without the references to Secrets."""
    return _without_secrets(spec[name])


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_secrets(item) for key, item in value.items() if key not in SECRETS}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value
