"""How often all runs are listed."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import fake_time
import pytest
from sppo_operator.commands.view import PlainView
from sppo_operator.commands.watch import watch_all


class Runs:
    """Whose list takes so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.asked: list[float] = []

    async def list(self) -> list[dict[str, Any]]:
        self.asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds)
        return []


@pytest.mark.parametrize(("seconds", "times"), [(0.1, [0, 2.1, 4.2]), (3, [0, 33, 66])], ids=["soon", "slowly"])
def test_runs_are_listed_as_often_as_their_list_allows(seconds: float, times: list[float]) -> None:
    runs = Runs(seconds)

    async def scenario() -> None:
        async with asyncio.timeout(times[-1] + seconds):
            await watch_all(runs, PlainView(io.StringIO()), everywhere=True)  # type: ignore[arg-type] # stands in for Runs

    with pytest.raises(TimeoutError):
        fake_time.run(scenario())
    assert runs.asked == pytest.approx(times)
