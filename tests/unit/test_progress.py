from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest
from sppo_operator.cache import Cache, Key, Kind
from sppo_operator.errors import UnavailableError
from sppo_operator.progress import ProgressBoard
from sppo_operator.settings import Settings

RUN = Key("lab", "demo")


class Logs:
    """The logs of pods, by name; one that is not there cannot be read."""

    def __init__(self) -> None:
        self.of: dict[str, str] = {}
        self.read: list[str] = []

    async def text(self, path: str, **query: str) -> str:
        name = path.split("/")[-2]
        self.read.append(name)
        if name not in self.of:
            raise UnavailableError("the kubelet does not answer")
        return self.of[name]


class Board(ProgressBoard):
    def __init__(self, logs_per_second: int = 10) -> None:
        self.now, self.logs, self.cache = 0.0, Logs(), Cache()
        self.news: list[Key] = []
        self._version = 0
        settings = Settings(image="i", lease_namespace="n", identity="me", logs_per_second=logs_per_second)
        super().__init__(self.logs, self.cache, settings, self.news.append, clock=lambda: self.now)  # type: ignore[arg-type] # stands in for Api

    def put(self, kind: Kind, name: str, status: dict[str, Any], **metadata: Any) -> None:
        self._version += 1
        metadata = {"namespace": "lab", "name": name, "uid": f"uid-{name}", "resourceVersion": self._version} | metadata
        self.cache.put(kind, {"metadata": metadata, "status": status})

    def job(self, name: str = "j", over: str = "") -> None:
        conditions = [{"type": over, "status": "True"}] if over else []
        self.put(Kind.JOB, name, {"conditions": conditions}, labels={"sppo.dev/run": "demo"})

    def pod(self, name: str, index: int = 0, job: str = "j", phase: str = "Running") -> None:
        labels = {"sppo.dev/run": "demo", "batch.kubernetes.io/job-name": job}
        annotations = {"batch.kubernetes.io/job-completion-index": str(index)}
        self.put(Kind.POD, name, {"phase": phase}, labels=labels, annotations=annotations)

    def look(self, seconds: float = 15.0) -> list[str]:
        """One round after so many seconds; returns whose logs were read."""
        self.now += seconds
        self.logs.read.clear()
        asyncio.run(self.read_some())
        return sorted(self.logs.read)


def line(done: Any, total: Any = 10, **more: Any) -> str:
    return json.dumps({"progress": {"done": done, "total": total, "unit": "steps", **more}})


def test_progress_is_the_newest_line_that_reports_some() -> None:
    board = Board()
    board.job()
    board.pod("p")
    board.logs.of["p"] = "\n".join(["start", line(1), line(3, secondsLeft=20.7, figures={"loss": 0.5}), "noise"])
    board.look()
    assert board.latest("uid-j") == {
        "done": 3, "total": 10, "unit": "steps", "secondsLeft": 20, "figures": {"loss": 0.5},
    }  # fmt: skip
    assert board.news == [RUN]
    assert board.latest("uid-other") is None


def test_workers_are_added_up() -> None:
    board = Board()
    board.job()
    for index, text in enumerate([line(1, secondsLeft=9, figures={"a": 1}), line(5, secondsLeft=30), line(2, 20)]):
        board.pod(f"p{index}", index)
        board.logs.of[f"p{index}"] = text
    board.look()
    assert board.latest("uid-j") == {
        "done": 8, "total": 40, "unit": "steps", "secondsLeft": 30, "figures": {"a": 1},
    }  # fmt: skip


def test_speeds_of_workers_at_work_are_added_up() -> None:
    board = Board()
    board.job()
    speeds: list[Any] = [100.5, 50, "fast", 10**400, float("nan"), None, 7]
    for index, speed in enumerate(speeds):
        board.pod(f"p{index}", index)
        board.logs.of[f"p{index}"] = line(10 if index == 6 else 3, figures={"loss": 2, "tokensPerSecond": speed})
    board.look()
    latest = board.latest("uid-j")
    assert latest is not None
    assert latest["figures"] == {"loss": 2, "tokensPerSecond": 150.5}


def test_a_worker_that_ended_or_began_anew_still_counts_once() -> None:
    board = Board()
    board.job()
    for index in (0, 1):
        board.pod(f"p{index}", index)
        board.logs.of[f"p{index}"] = line(10)
    board.look()
    board.pod("p0", 0, phase="Succeeded")
    board.pod("p1", 1, phase="Failed")
    board.pod("again", 1)
    board.logs.of["again"] = line(4)
    assert board.look() == ["again"]
    latest = board.latest("uid-j")
    assert latest is not None
    assert (latest["done"], latest["total"]) == (14, 20)


@pytest.mark.parametrize("over", ["Complete", "Failed"])
def test_a_job_that_is_over_is_forgotten(over: str) -> None:
    board = Board()
    board.job()
    board.pod("p")
    board.logs.of["p"] = line(1)
    board.look()
    board.job(over=over)
    assert board.look() == []
    assert board.latest("uid-j") is None


def test_every_pod_is_read_in_turn_within_the_budget() -> None:
    board = Board(logs_per_second=2)
    board.job()
    for index in range(5):
        board.pod(f"p{index}", index)
    rounds = [board.look(1) for _ in range(4)]
    assert [len(names) for names in rounds] == [2, 2, 1, 0]
    assert sorted(name for names in rounds for name in names) == ["p0", "p1", "p2", "p3", "p4"]
    assert board.look(12) == rounds[0], "not 15 s after it was read"


def test_the_pod_that_waited_longest_comes_first() -> None:
    board = Board(logs_per_second=2)
    board.job()
    for index in range(5):
        board.pod(f"p{index}", index)
    assert [board.look(15) for _ in range(3)] == [["p0", "p1"], ["p2", "p3"], ["p0", "p4"]]


@pytest.mark.parametrize("phase", ["Pending", "Succeeded", "Failed", "Unknown"])
def test_only_running_pods_are_read(phase: str) -> None:
    board = Board()
    board.job()
    board.pod("p", phase=phase)
    assert board.look() == []


def test_nothing_new_is_no_news() -> None:
    board = Board()
    board.job()
    board.pod("p")
    board.logs.of["p"] = line(1)
    board.look()
    board.look()
    del board.logs.of["p"]  # cannot be read now
    board.look()
    assert board.news == [RUN]
    latest = board.latest("uid-j")
    assert latest is not None
    assert latest["done"] == 1


@pytest.mark.parametrize(
    "text",
    ["", "Traceback", '{"progress": ', '{"progress": 7}', line("x"), line(-1), line(1, math.nan), line(2**60), line(True)],
    ids=["empty", "no JSON", "cut off", "no object", "words", "negative", "NaN", "too large", "a truth"],
)  # fmt: skip
def test_a_log_may_hold_anything(text: str) -> None:
    board = Board()
    board.job()
    board.pod("p")
    board.logs.of["p"] = text
    board.look()
    assert board.latest("uid-j") is None


@pytest.mark.parametrize(
    "more",
    [{"secondsLeft": "soon"}, {"secondsLeft": None}, {"secondsLeft": math.inf}, {"figures": ["loss"]}, {"figures": None}],
    ids=str,
)  # fmt: skip
def test_what_the_resource_cannot_hold_is_left_out(more: dict[str, Any]) -> None:
    board = Board()
    board.job()
    board.pod("p")
    board.logs.of["p"] = line(1, **more)
    board.look()
    assert board.latest("uid-j") == {"done": 1, "total": 10, "unit": "steps"}


def test_without_a_budget_no_log_is_read() -> None:
    board = Board(logs_per_second=0)
    board.job()
    board.pod("p")
    assert board.look() == []
