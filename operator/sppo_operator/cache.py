"""What the watches and our own writes last said about runs, their Jobs and pods: a hint, never the truth.

Sources race: an answer to a write may come before or after the watch's event about it, and a LIST may be older than
both. Resource versions of one resource are ordered (KEP-5504), so the newer one wins, and what was deleted stays away.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from sppo_operator.jobs import RUN_LABEL
from sppo_operator.resources import JOB_LABEL, PLURAL

REMEMBERED_DELETIONS = 10_000
READ_OF_CONTAINERS = ("name", "image", "resources")


class Key(NamedTuple):
    """The address of an object; without another word, that of a run."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Kind(StrEnum):
    """The kinds that are watched, by their plural."""

    RUN = PLURAL
    JOB = "jobs"
    POD = "pods"


@dataclass(frozen=True)
class _Held:
    run: Key
    uid: str
    version: int
    value: dict[str, Any]


class Cache:
    """Objects by kind and address, and by the run that they belong to."""

    def __init__(self) -> None:
        self._held: dict[Kind, dict[Key, _Held]] = {kind: {} for kind in Kind}
        self._of_run: dict[Kind, defaultdict[Key, dict[Key, dict[str, Any]]]] = {
            kind: defaultdict(dict) for kind in Kind
        }
        self._deleted: OrderedDict[str, int] = OrderedDict()

    def put(self, kind: Kind, item: Mapping[str, Any]) -> Key | None:
        """Keep the object, trimmed, unless a newer state is known; returns its run if this was news."""
        run, metadata = _run_of(kind, item), item["metadata"]
        if run is None:
            return None
        address, version = _address(item), int(metadata["resourceVersion"])
        held = self._held[kind].get(address)
        if version <= max(held.version if held else -1, self._deleted.get(metadata["uid"], -1)):
            return None
        if held:
            self._drop(kind, address)
        held = _Held(run, metadata["uid"], version, trimmed(kind, item))
        self._held[kind][address] = held
        self._of_run[kind][run][address] = held.value
        return run

    def remove(self, kind: Kind, item: Mapping[str, Any]) -> Key | None:
        """Forget an object that was deleted; returns its run if this was news."""
        address, version, uid = _address(item), int(item["metadata"]["resourceVersion"]), item["metadata"]["uid"]
        self._deleted[uid] = max(version, self._deleted.pop(uid, -1))
        if len(self._deleted) > REMEMBERED_DELETIONS:
            self._deleted.popitem(last=False)
        held = self._held[kind].get(address)
        # One of the same name may have been created since; a label that it lost and got back looks like a deletion.
        if held is None or held.uid != uid or held.version > version:
            return None
        return self._drop(kind, address)

    def replace(self, kind: Kind, items: Iterable[Mapping[str, Any]], version: str = "") -> list[Key]:
        """Bring the kind to what a LIST said; returns the runs for which that was news.

        Objects newer than `version`, the LIST's resource version, stay: they were created after it.
        """
        listed, changed = set(), set()
        for item in items:
            listed.add(_address(item))
            changed.add(self.put(kind, item))
        for address, held in list(self._held[kind].items()):
            if address not in listed and (not version or held.version <= int(version)):
                changed.add(self._drop(kind, address))
        return sorted(key for key in changed if key is not None)

    def runs(self) -> list[dict[str, Any]]:
        return [held.value for held in self._held[Kind.RUN].values()]

    def run(self, key: Key) -> dict[str, Any] | None:
        held = self._held[Kind.RUN].get(key)
        return held.value if held else None

    def jobs(self, key: Key) -> list[dict[str, Any]]:
        return list(self._of_run[Kind.JOB].get(key, {}).values())

    def pods(self, key: Key, job_name: str) -> list[dict[str, Any]]:
        pods = self._of_run[Kind.POD].get(key, {}).values()
        return [pod for pod in pods if pod["metadata"]["labels"].get(JOB_LABEL) == job_name]

    def keys(self) -> list[Key]:
        """All runs, and those that are gone while something of theirs is left."""
        return sorted({key for of_run in self._of_run.values() for key in of_run})

    def _drop(self, kind: Kind, address: Key) -> Key:
        run = self._held[kind].pop(address).run
        del self._of_run[kind][run][address]
        if not self._of_run[kind][run]:
            del self._of_run[kind][run]
        return run


def trimmed(kind: Kind, item: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without what nobody here reads, which are three quarters of the memory that an object takes."""
    metadata = {name: value for name, value in item["metadata"].items() if name != "managedFields"}
    kept = {**item, "metadata": metadata}
    match kind, item.get("spec"):
        case Kind.POD, {**spec}:
            kept["spec"] = {name: spec[name] for name in ("nodeName",) if name in spec}
        case Kind.JOB, {"template": {"spec": {"containers": containers}}, **spec}:
            read = [
                {name: container[name] for name in READ_OF_CONTAINERS if name in container} for container in containers
            ]
            kept["spec"] = {**spec, "template": {"spec": {"containers": read}}}
    return kept


def _address(item: Mapping[str, Any]) -> Key:
    return Key(item["metadata"]["namespace"], item["metadata"]["name"])


def _run_of(kind: Kind, item: Mapping[str, Any]) -> Key | None:
    if kind is Kind.RUN:
        return _address(item)
    name = item["metadata"].get("labels", {}).get(RUN_LABEL)
    return Key(item["metadata"]["namespace"], name) if name else None
