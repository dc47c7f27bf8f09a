"""A real cluster with a real operator, booted once for all tests, or the node that `make cluster` left running.

SPPO_TEST_KUBECONFIG names another cluster instead. It has to have the images: SPPO_TEST_IMAGES=PREFIX says where, for
PREFIX/sppo-operator:test, sppo-trainer:test and sppo-standin:test; tests that break nodes and servers are skipped there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import images
import pytest
from lab import Lab
from namespaces import Namespace
from operators import Operator
from testbed import KUEUE, Node, install_kueue, why_not

ELSEWHERE = os.environ.get("SPPO_TEST_KUBECONFIG")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test here may wait for a dozen pods, each of which imports torch."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(20 * 60))


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """The node whose processes a test may kill."""
    if ELSEWHERE:
        pytest.skip("SPPO_TEST_KUBECONFIG names a cluster that tests must not break")
    if missing := why_not(building=True):
        pytest.skip(f"no cluster can be booted here: {missing}")
    node = Node()
    found = node.healthy()
    node.start()
    yield node
    if not found:
        node.stop()


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Lab:
    if ELSEWHERE:
        return Lab(Path(ELSEWHERE))
    return Lab(request.getfixturevalue("node").kubeconfig)


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """The name of an image of this project (operator, trainer, standin), which the cluster has from then on."""
    if ELSEWHERE:
        return lambda target: f"{os.environ['SPPO_TEST_IMAGES']}/sppo-{target}:test"
    node: Node = request.getfixturevalue("node")
    builders = {"operator": images.operator_image, "trainer": images.trainer_image, "standin": images.standin_image}

    def ready(target: str) -> str:
        name = builders[target]()
        images.load(name, node.ctr())
        return name

    return ready


@pytest.fixture(scope="session")
def operator(lab: Lab, image: Callable[[str], str]) -> Iterator[Operator]:
    """The operator of `kubectl apply -k manifests`, two replicas, whose runs use the stand-in unless they say otherwise."""
    operator = Operator(lab, image("operator"), image("standin"))
    operator.install()
    yield operator
    operator.remove()


@pytest.fixture
def namespace(lab: Lab, request: pytest.FixtureRequest, operator: Operator) -> Iterator[Namespace]:
    """A namespace of the test's own, with Pod Security `restricted` and a claim `workspace`."""
    space = Namespace.create(lab, request.node.name)
    yield space
    space.remove()


@pytest.fixture(scope="session")
def kueue(node: Node) -> None:
    """Kueue on the node, where it stays."""
    if missing := why_not(KUEUE, building=True):
        pytest.skip(f"no Kueue here: {missing}")
    install_kueue(node)
