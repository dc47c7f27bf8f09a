"""The API server's audit log: who wrote what, and when, to the microsecond."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

OPERATOR = "system:serviceaccount:sppo-system:sppo-operator"
WRITES = ("create", "update", "patch", "delete", "deletecollection")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call, answered well."""

    user: str
    pod: str
    """Of the caller, if it has the token of a service account."""
    verb: str
    resource: str
    """With the subresource: `jobs/status`."""
    namespace: str
    name: str
    received: datetime
    answered: datetime
    body: Mapping[str, Any]
    """The answer, where the node's audit policy keeps it."""


class AuditLog:
    """The calls since this object was made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin = path.stat().st_size

    def calls(self, namespace: str = "") -> list[Call]:
        """All calls that were answered well, in the order in which they were answered; of one namespace, or all."""
        with self._path.open("rb") as log:
            log.seek(self._begin)
            found = [call for line in log if (call := _call(line)) and namespace in ("", call.namespace)]
        return sorted(found, key=lambda call: call.answered)


def completions(calls: Iterable[Call]) -> dict[str, Call]:
    """For each Job, by name, the update of its status that made it Complete or Failed."""
    ends: dict[str, Call] = {}
    for call in calls:
        if call.resource == "jobs/status" and _is_over(call.body):
            ends.setdefault(call.name, call)
    return ends


def creations(calls: Iterable[Call]) -> dict[str, Call]:
    """For each Job, by name, the call that created it first."""
    created: dict[str, Call] = {}
    for call in calls:
        if (call.verb, call.resource) == ("create", "jobs"):
            created.setdefault(call.name, call)
    return created


def live_at_once(calls: list[Call]) -> list[tuple[str, str]]:
    """Pairs of Jobs of the same stage of a run of which the second was created before the first had ended."""
    ends = {name: call.received for name, call in completions(calls).items()}
    for call in calls:
        if (call.verb, call.resource) == ("delete", "jobs"):
            ends[call.name] = min(call.received, ends.get(call.name, call.received))
    by_step: defaultdict[str, list[str]] = defaultdict(list)
    created = creations(calls)
    for name in sorted(created, key=lambda name: created[name].answered):
        by_step[name.rpartition("-a")[0]].append(name)
    pairs = [pair for names in by_step.values() for pair in pairwise(names)]
    return [(old, new) for old, new in pairs if old not in ends or created[new].received < ends[old]]


def written_out_of_turn(calls: Iterable[Call], lease: str) -> list[Call]:
    """What pods of the operator wrote while another one held the lease, or none did."""
    own = [call for call in calls if call.user == OPERATOR and call.verb in WRITES]
    # A write counts from when it reached the server, the lease from when it was granted.
    own.sort(key=lambda call: call.answered if call.resource == "leases" else call.received)
    holder: str | None = None
    found = []
    for call in own:
        if (call.resource, call.name) == ("leases", lease):
            holder = call.body["spec"].get("holderIdentity") or ""
        elif holder is not None and call.pod != holder:
            found.append(call)
    return found


def _call(line: bytes) -> Call | None:
    """None for a call that was refused or changed nothing, and for the last line of an API server that was killed."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    target, status = event.get("objectRef", {}), event.get("responseStatus", {})
    if not 200 <= status.get("code", 0) < 300 or "dryRun=" in event["requestURI"]:
        return None
    (pod,) = event["user"].get("extra", {}).get("authentication.kubernetes.io/pod-name", [""])
    parts = (target.get("resource", ""), target.get("subresource", ""))
    return Call(
        user=event["user"]["username"],
        pod=pod,
        verb=event["verb"],
        resource="/".join(part for part in parts if part),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        received=datetime.fromisoformat(event["requestReceivedTimestamp"]),
        answered=datetime.fromisoformat(event["stageTimestamp"]),
        body=event.get("responseObject", {}),
    )


def _is_over(job: Mapping[str, Any]) -> bool:
    conditions: Iterator[Mapping[str, Any]] = iter(job.get("status", {}).get("conditions") or ())
    return any(item["type"] in ("Complete", "Failed") and item["status"] == "True" for item in conditions)
