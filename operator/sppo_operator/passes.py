"""What one pass over a run knows: filled by observing, read by deciding, acting and reporting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sppo_operator.decide import Action, Step
from sppo_operator.facts import Record
from sppo_operator.jobs import job_manifest
from sppo_operator.objects import moment
from sppo_operator.observe import Observation
from sppo_operator.spec import Run

AGAIN_SECONDS = 2.0
"""When to look again at what the cluster tells nobody about, such as a pod's grace period that runs out."""

DRY_RUN_ATTEMPT = 999999
"""No Job of this name ever exists."""


@dataclass(kw_only=True)
class Pass:
    """What one pass found out about a run, and what it decided."""

    run: Run
    uid: str
    status: Mapping[str, Any]
    """As the API server holds it."""
    recorded: Mapping[Step, Record]
    """What the status says."""
    image: str
    now: datetime
    observations: list[Observation] = field(default_factory=list)
    records: dict[Step, Record] = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    blocked: str = ""
    again: float | None = None
    """Seconds until time alone can change something."""

    def look_again(self, seconds: float) -> None:
        self.again = seconds if self.again is None else min(self.again, seconds)

    def seconds_since(self, time: str) -> float:
        """How long ago a time was, as the API server writes it."""
        return (self.now - moment(time)).total_seconds()

    def live(self) -> list[Observation]:
        return [seen for seen in self.observations if seen.end is None]

    def owns(self, item: Mapping[str, Any]) -> bool:
        """Whether the run controls this object."""
        owners = item["metadata"].get("ownerReferences", ())
        return any(owner["uid"] == self.uid for owner in owners if owner.get("controller"))

    def manifest(self, step: Step, attempt: int) -> dict[str, Any]:
        """The Job of an attempt, with what is left of the step's retries."""
        charged = self.records.get(step, Record()).attempts.charged
        left = max(self.run.retries - charged, 0)
        return job_manifest(self.run, self.uid, step, attempt, image=self.image, retries_left=left)
