from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sppo_operator.cache import Cache, Key, Kind, trimmed

RUN = Key("lab", "demo")


def run(version: int, uid: str = "u1") -> dict[str, Any]:
    return {"metadata": {"namespace": "lab", "name": "demo", "uid": uid, "resourceVersion": str(version)}}


def job(version: int, name: str = "j", uid: str = "", of: str | None = "demo") -> dict[str, Any]:
    labels = {"sppo.dev/run": of} if of else {}
    metadata = {"namespace": "lab", "name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": metadata | {"labels": labels}}


def pod(version: int, name: str, job_name: str) -> dict[str, Any]:
    item = job(version, name)
    item["metadata"]["labels"]["batch.kubernetes.io/job-name"] = job_name
    return item


def versions(cache: Cache) -> dict[str, int]:
    return {item["metadata"]["name"]: int(item["metadata"]["resourceVersion"]) for item in cache.jobs(RUN)}


@pytest.mark.parametrize(
    ("second", "news", "kept"),
    [
        (job(8), None, 9),
        (job(9), None, 9),
        (job(10), RUN, 10),
        (job(100), RUN, 100),
        (job(10, of="other"), Key("lab", "other"), None),
        (job(10, of=None), None, 9),
    ],
    ids=["older", "the same", "newer, as a number", "newer by digits", "of another run now", "of no run"],
)
def test_the_newer_state_wins(second: dict[str, Any], news: Key | None, kept: int | None) -> None:
    cache = Cache()
    assert cache.put(Kind.JOB, job(9)) == RUN
    assert cache.put(Kind.JOB, second) == news
    assert versions(cache) == ({"j": kept} if kept else {})


def test_what_is_kept_is_a_copy_without_managed_fields() -> None:
    cache, item = Cache(), run(1)
    item["metadata"]["managedFields"] = [{}]
    cache.put(Kind.RUN, item)
    kept = cache.run(RUN)
    assert kept is not None
    assert "managedFields" not in kept["metadata"]
    assert "managedFields" in item["metadata"], "the caller's object was changed"


def test_what_is_kept_of_jobs_and_pods_is_what_is_read() -> None:
    read = {"name": "stage", "image": "trainer:1", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    container = read | {"env": [{"name": "SPPO_CONFIG", "value": "long"}]}
    template = {"metadata": {"labels": {}}, "spec": {"containers": [container], "volumes": []}}
    kept = trimmed(Kind.JOB, job(1) | {"spec": {"suspend": True, "template": template}, "status": {"active": 1}})
    pods = {"spec": {"containers": [read]}}
    assert (kept["spec"], kept["status"]) == ({"suspend": True, "template": pods}, {"active": 1})
    placed = {"spec": {"nodeName": "node-1", "containers": [container]}, "status": {"phase": "Running"}}
    assert trimmed(Kind.POD, job(1) | placed) == job(1) | placed | {"spec": {"nodeName": "node-1"}}


@pytest.mark.parametrize(
    ("gone", "news", "kept"),
    [
        (job(6), RUN, {}),
        (job(4), None, {"j": 5}),
        (job(6, uid="another"), None, {"j": 5}),
        (job(6, name="k"), None, {"j": 5}),
    ],
    ids=["deleted", "it lost its label and has it again", "an earlier one of the name", "unknown"],
)
def test_remove(gone: dict[str, Any], news: Key | None, kept: dict[str, int]) -> None:
    cache = Cache()
    cache.put(Kind.JOB, job(5))
    assert cache.remove(Kind.JOB, gone) == news
    assert versions(cache) == kept


@pytest.mark.parametrize(
    ("late", "kept"),
    [(job(5), {}), (job(6), {}), (job(7), {"j": 7}), (job(6, uid="second"), {"j": 6})],
    ids=["older", "the deletion itself", "labelled again", "a new one of the name"],
)
def test_what_was_deleted_stays_away(late: dict[str, Any], kept: dict[str, int]) -> None:
    cache = Cache()
    cache.put(Kind.JOB, job(4))
    cache.remove(Kind.JOB, job(6))
    cache.put(Kind.JOB, late)
    assert versions(cache) == kept


@pytest.mark.parametrize(
    ("listed", "version", "changed", "kept"),
    [
        ([job(1, "a"), job(2, "b")], "9", [], {"a": 1, "b": 2}),
        ([job(1, "a"), job(3, "b")], "9", [RUN], {"a": 1, "b": 3}),
        ([job(1, "a")], "9", [RUN], {"a": 1}),
        ([job(1, "a")], "1", [], {"a": 1, "b": 2}),
        ([job(1, "a")], "", [RUN], {"a": 1}),
        ([job(1, "a"), job(2, "b"), job(3, "c")], "9", [RUN], {"a": 1, "b": 2, "c": 3}),
    ],
    ids=["nothing new", "changed", "gone", "newer than the LIST", "without a version", "new"],
)
def test_replace(listed: list[dict[str, Any]], version: str, changed: list[Key], kept: dict[str, int]) -> None:
    cache = Cache()
    for item in (job(1, "a"), job(2, "b")):
        cache.put(Kind.JOB, item)
    assert cache.replace(Kind.JOB, listed, version) == changed
    assert versions(cache) == kept


def test_objects_are_found_by_their_run() -> None:
    cache = Cache()
    cache.put(Kind.RUN, run(1))
    cache.put(Kind.JOB, job(2, "j1"))
    for item in (pod(3, "p1", "j1"), pod(4, "p2", "j1"), pod(5, "p3", "j2")):
        cache.put(Kind.POD, item)
    cache.put(Kind.JOB, job(6, "orphan", of="gone"))
    assert [item["metadata"]["name"] for item in cache.pods(RUN, "j1")] == ["p1", "p2"]
    assert cache.keys() == [RUN, Key("lab", "gone")]
    assert cache.run(Key("lab", "gone")) is None
    assert cache.jobs(Key("lab", "nothing")) == []


@given(st.integers(0, 2**32))
def test_any_order_of_events_answers_and_lists_ends_in_the_truth(seed: int) -> None:
    """Watches deliver late but in order per object; answers to writes and LISTs arrive whenever they like."""
    chance = random.Random(seed)
    truth: dict[str, dict[str, Any]] = {}
    events: dict[str, list[tuple[bool, dict[str, Any]]]] = {}
    cache = Cache()
    late: list[Callable[[], object]] = []
    for version in range(1, 40):
        name = chance.choice("abc")
        if name in truth and chance.random() < 0.3:
            gone = job(version, name, truth.pop(name)["metadata"]["uid"])
            events.setdefault(gone["metadata"]["uid"], []).append((False, gone))
        else:
            uid = truth[name]["metadata"]["uid"] if name in truth else f"{name}{version}"
            truth[name] = job(version, name, uid)
            events.setdefault(uid, []).append((True, truth[name]))
            late.append(partial(cache.put, Kind.JOB, truth[name]))
        if chance.random() < 0.2:
            late.append(partial(cache.replace, Kind.JOB, [*truth.values()], str(version)))
    queues = [*events.values()]
    while queues or late:
        if late and (not queues or chance.random() < 0.5):
            late.pop(chance.randrange(len(late)))()
            continue
        queue = chance.choice(queues)
        present, item = queue.pop(0)
        (cache.put if present else cache.remove)(Kind.JOB, item)
        queues = [queue for queue in queues if queue]
    assert versions(cache) == {name: int(item["metadata"]["resourceVersion"]) for name, item in truth.items()}
