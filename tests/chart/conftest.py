"""Helm 4 and 3, and kube-score: built once from pinned modules, in minutes; then a test takes a second."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helm_chart import Helm
from testbed.build import HELM, HELM_3, KUBE_SCORE, Binary, built, cached


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test may have to build Helm."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(20 * 60))


def _ready(binary: Binary) -> Path:
    if not cached(binary) and shutil.which("go") is None:
        pytest.skip(f"{binary.name} was not built before, and there is no Go to build it")
    return built(binary)


@pytest.fixture(scope="session")
def helm() -> Helm:
    return Helm(_ready(HELM))


@pytest.fixture(scope="session")
def helm_3() -> Helm:
    return Helm(_ready(HELM_3))


@pytest.fixture(scope="session")
def kube_score() -> Path:
    return _ready(KUBE_SCORE)
