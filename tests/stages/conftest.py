"""Fixtures that the tests of `sppo run` share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench, wait_until


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for command in bench.commands:
        command.kill()
        command.communicate()
    wait_until(lambda: bench.living() == [])
