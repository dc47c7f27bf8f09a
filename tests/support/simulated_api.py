"""An API server in memory, with the semantics that the operator relies on and watches as slow as a test wants them."""

from __future__ import annotations

import json
import re
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from sppo_operator.cache import Cache, Kind
from sppo_operator.errors import AlreadyExistsError, ConflictError, NotFoundError
from sppo_operator.facts import timestamp

Object = dict[str, Any]
Objects = list[Object]
T = TypeVar("T")
PATH = re.compile(r"/apis?(?:/[^/]+)?/v[^/]+(?:/namespaces/([^/]+))?/([^/]+)(?:/([^/]+))?(?:/(status|log))?")
GRACE_SECONDS = 30


class At(NamedTuple):
    """Where an object is; `name` is empty for a collection."""

    plural: str
    namespace: str
    name: str = ""
    part: str = ""

    @classmethod
    def of(cls, path: str) -> At:
        match = PATH.fullmatch(path)
        assert match, f"no path of an API server: {path}"
        namespace, plural, name, part = match.groups(default="")
        return cls(plural, namespace, name, part)


class Call(NamedTuple):
    verb: str
    at: At
    body: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.verb} {'/'.join(filter(None, self.at))}"


class SimulatedApi:
    """The methods of `api.Api` on objects in memory, which nobody changes: a write replaces them."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 31, 12, tzinfo=UTC)
        self.calls: list[Call] = []
        self.disturb: Callable[[Call, bool], None] = lambda call, done: None
        """Called before (done False) and after every call; what it raises is what the caller gets."""
        self.admission: Callable[[Object], None] = lambda body: None
        """Called with every object to be created, also in a dry run; may raise an ApiError."""
        self._objects: dict[At, Object] = {}
        self._newest = 0
        self._unseen: dict[Kind, deque[tuple[bool, Object]]] = defaultdict(deque)
        """Of every watch the events that no cache has got yet: whether the object is present, and its state."""

    # What the operator calls

    async def get(self, path: str) -> Object:
        return self._call("get", path, self._found)

    async def list(self, path: str, selector: str = "") -> Objects:
        return self._call("list", path, lambda at: self.all(at.plural, selector, at.namespace))

    async def create(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        verb = "try" if dry_run else "create"
        return self._call(verb, path, lambda at: self._create(at, body, dry_run=dry_run), body)

    async def replace(self, path: str, body: Mapping[str, Any]) -> Object:
        return self._call("replace", path, lambda at: self._replace(at, body), body)

    async def merge_patch(self, path: str, patch: Mapping[str, Any]) -> Object:
        return self._call("patch", path, lambda at: self._replace(at, merged(self._found(at), patch)), patch)

    async def delete(self, path: str, *, uid: str, propagation: str = "Background") -> None:
        self._call("delete", path, lambda at: self.remove(at, uid, propagation))

    async def text(self, path: str, seconds: float | None = None, /, **query: str) -> str:
        return self._call("text", path, lambda at: self.log_of(self._found(at)))

    # What tests and controllers call

    def all(self, plural: str, selector: str = "", namespace: str = "") -> Objects:
        wanted = dict(term.split("=") for term in selector.split(",") if term)
        return [
            item
            for at, item in self._objects.items()
            if at.plural == plural
            and namespace in ("", at.namespace)
            and wanted.items() <= item["metadata"].get("labels", {}).items()
        ]

    def add(self, plural: str, body: Mapping[str, Any]) -> Object:
        return self._create(At(plural, body["metadata"].get("namespace", "default")), body)

    def change(self, item: Object, part: str = "", **fields: Any) -> Object:
        """Merge fields into an object, or into its status, as users and controllers do."""
        at = self.at(item)._replace(part=part)
        return self._replace(at, merged(self._found(at), {part: fields} if part else fields))

    def at(self, item: Object) -> At:
        uid = item["metadata"]["uid"]
        return next(at for at, held in self._objects.items() if held["metadata"]["uid"] == uid)

    def remove(self, at: At, uid: str = "", propagation: str = "Background") -> None:
        """Delete: a pod at work gets its grace, and an owner in the foreground stays until its dependents are gone."""
        item = self._found(at)
        metadata = item["metadata"]
        if uid not in ("", metadata["uid"]):
            raise ConflictError(f"the uid in the precondition is {uid}, not {metadata['uid']}", status=409)
        at_work = at.plural == "pods" and item["status"]["phase"] in ("Pending", "Running")
        if not at_work and propagation != "Foreground":
            del self._objects[at]
            self._tell(at, {**item, "metadata": {**metadata, "resourceVersion": self._number()}}, present=False)
        elif "deletionTimestamp" not in metadata:
            grace = GRACE_SECONDS if at_work else 0
            going: Object = {"deletionTimestamp": timestamp(self.now + timedelta(seconds=grace))}
            going |= {"deletionGracePeriodSeconds": grace}
            self._store(at, item, {**item, "metadata": metadata | going})

    def log_of(self, pod: Object) -> str:
        return ""

    def primed(self) -> Cache:
        """A new cache, filled by LISTs; its watches begin here."""
        cache = Cache()
        self._unseen.clear()
        for kind in Kind:
            cache.replace(kind, self.all(kind.value))
        return cache

    def deliver(self, cache: Cache, kind: Kind, events: int | None = None) -> bool:
        """Bring the oldest events of one watch, or all of them, to a cache; whether that was news to it."""
        unseen = self._unseen[kind]
        news = False
        for _ in range(len(unseen) if events is None else min(events, len(unseen))):
            present, item = unseen.popleft()
            news |= (cache.put if present else cache.remove)(kind, item) is not None
        return news

    @property
    def version(self) -> int:
        """Of the newest write."""
        return self._newest

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # Storage

    def _call(self, verb: str, path: str, effect: Callable[[At], T], body: Mapping[str, Any] | None = None) -> T:
        call = Call(verb, At.of(path), body)
        self.calls.append(call)
        self.disturb(call, False)
        result = effect(call.at)
        self.disturb(call, True)
        return result

    def _found(self, at: At) -> Object:
        found = self._objects.get(at._replace(part=""))
        if found is None:
            raise NotFoundError(f'{at.plural} "{at.name}" not found', status=404, reason="NotFound")
        return found

    def _create(self, at: At, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        item = json.loads(json.dumps(body))
        at = at._replace(name=item["metadata"]["name"])
        if at in self._objects:
            raise AlreadyExistsError(f'{at.plural} "{at.name}" already exists', status=409, reason="AlreadyExists")
        self.admission(item)
        item["metadata"] |= {
            "namespace": at.namespace,
            "uid": f"uid-{self._number()}",
            "creationTimestamp": timestamp(self.now),
            "generation": 1,
        }
        item.setdefault("status", {})
        return item if dry_run else self._store(at, None, item)

    def _replace(self, at: At, body: Mapping[str, Any]) -> Object:
        """Status and the rest are written apart; only an object that was read in its newest state is accepted."""
        old, new = self._found(at), json.loads(json.dumps(body))
        if new["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]:
            message = "the object has been modified; please apply your changes to the latest version and try again"
            raise ConflictError(message, status=409, reason="Conflict")
        if at.part == "status":
            return self._store(at._replace(part=""), old, {**old, "status": new["status"]})
        new["metadata"]["generation"] += new.get("spec") != old.get("spec")
        return self._store(at, old, {**new, "status": old["status"]})

    def _store(self, at: At, old: Object | None, new: Object) -> Object:
        """Keep the new state; one that says nothing new keeps its version and is no event."""
        if new != old:
            new["metadata"] = {**new["metadata"], "resourceVersion": self._number()}
            self._objects[at] = new
            self._tell(at, new, present=True)
        return self._objects[at]

    def _tell(self, at: At, item: Object, *, present: bool) -> None:
        if at.plural in list(Kind):
            self._unseen[Kind(at.plural)].append((present, item))

    def _number(self) -> str:
        self._newest += 1
        return str(self._newest)


def merged(target: Any, patch: Any) -> Any:
    """JSON merge patch, RFC 7386."""
    if not isinstance(patch, Mapping):
        return patch
    base = target if isinstance(target, Mapping) else {}
    result = {**base, **{key: merged(base.get(key), value) for key, value in patch.items()}}
    return {key: value for key, value in result.items() if value is not None}
