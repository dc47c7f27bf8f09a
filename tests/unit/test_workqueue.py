"""The work queue against a model of client-go's, and its times on a clock that jumps."""

from __future__ import annotations

import asyncio

import fake_time
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sppo_operator.workqueue import BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, WorkQueue

KEYS = st.sampled_from("abcd")


class AgainstClientGo(RuleBasedStateMachine):
    """The model is client-go's: a set of dirty keys, a set of those in work, a queue; and the earliest delay of a key."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=fake_time.FakeTimeLoop)
        self.loop = self.runner.get_loop()
        self.queue = WorkQueue[str]()
        self.waiting: list[str] = []
        self.dirty: set[str] = set()
        self.working: set[str] = set()
        self.due: dict[str, float] = {}

    def teardown(self) -> None:
        self.runner.close()

    def call(self, method: str, *arguments: object) -> None:
        async def inside() -> None:
            getattr(self.queue, method)(*arguments)
            await asyncio.sleep(0)

        self.runner.run(inside())

    def model_add(self, key: str) -> None:
        if key not in self.dirty:
            self.dirty.add(key)
            if key not in self.working:
                self.waiting.append(key)

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.call("add", key)
        self.model_add(key)

    @rule(key=KEYS, seconds=st.integers(0, 5))
    def add_after(self, key: str, seconds: int) -> None:
        at = self.loop.time() + seconds
        self.call("add_after", key, seconds)
        self.due[key] = min(self.due.get(key, at), at)
        self.pass_time(0)

    @rule(seconds=st.integers(0, 6))
    def pass_time(self, seconds: int) -> None:
        until = self.loop.time() + seconds
        self.runner.run(asyncio.sleep(seconds + 0.001))
        for key in sorted(self.due, key=self.due.__getitem__):
            if self.due[key] <= until:
                del self.due[key]
                self.model_add(key)

    @precondition(lambda self: self.waiting)
    @rule()
    def get(self) -> None:
        key = self.runner.run(self.queue.get())
        assert key not in self.working, "a key is worked on twice at once"
        # Timers of one instant may ring in any order, so the model takes what comes if it waits.
        assert key in self.waiting
        self.waiting.remove(key)
        self.dirty.remove(key)
        self.working.add(key)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.call("done", key)
        self.working.remove(key)
        if key in self.dirty:
            self.waiting.append(key)

    @invariant()
    def no_addition_is_lost(self) -> None:
        assert self.queue.depth == len(self.waiting)


TestAgainstClientGo = AgainstClientGo.TestCase
TestAgainstClientGo.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_waiting_workers_get_a_key_each_in_order() -> None:
    async def scenario() -> list[str | None]:
        queue = WorkQueue[str]()
        getters = [asyncio.create_task(queue.get()) for _ in range(3)]
        await asyncio.sleep(1)
        for key in "aab":
            queue.add(key)
        await asyncio.sleep(1)
        queue.stop()
        return [await getter for getter in getters]

    assert fake_time.run(scenario()) == ["a", "b", None]


def test_a_cancelled_worker_takes_no_key_with_it() -> None:
    async def scenario() -> str | None:
        queue = WorkQueue[str]()
        getter = asyncio.create_task(queue.get())
        await asyncio.sleep(1)
        queue.add("a")
        getter.cancel()
        return await queue.get()

    assert fake_time.run(scenario()) == "a"


async def _seconds_until_given(queue: WorkQueue[str]) -> float:
    loop = asyncio.get_running_loop()
    before = loop.time()
    key = await queue.get()
    assert key
    queue.done(key)
    return round(loop.time() - before, 3)


def test_backoff_doubles_up_to_its_bound_until_a_success() -> None:
    async def scenario() -> list[float]:
        queue = WorkQueue[str](jitter=lambda: 0.0)
        seconds = []
        for failure in range(12):
            if failure == 11:
                queue.forget("a")
            queue.retry("a")
            seconds.append(await _seconds_until_given(queue))
        return seconds

    doubled = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6]
    assert fake_time.run(scenario()) == [*doubled, LONGEST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS]


def test_jitter_takes_off_up_to_half() -> None:
    async def scenario() -> float:
        queue = WorkQueue[str](jitter=lambda: 0.5)
        queue.retry("a")
        return await _seconds_until_given(queue)

    assert fake_time.run(scenario()) == 0.075  # 0.1 * (1 - 0.5 / 2)


def test_the_earliest_of_several_times_holds() -> None:
    async def scenario() -> tuple[float, int]:
        queue = WorkQueue[str]()
        for seconds in (30, 10, 20):
            queue.add_after("a", seconds)
        first = await _seconds_until_given(queue)
        await asyncio.sleep(60)
        return first, queue.depth

    assert fake_time.run(scenario()) == (10.0, 0)


def test_a_stopped_queue_gives_nothing() -> None:
    async def scenario() -> str | None:
        queue = WorkQueue[str]()
        queue.add("a")
        queue.add_after("b", 1)
        queue.stop()
        queue.add("c")
        await asyncio.sleep(5)
        return await queue.get()

    assert fake_time.run(scenario()) is None
