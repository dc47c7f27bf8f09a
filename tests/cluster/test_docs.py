"""The commands of the documentation that need a cluster, run page by page on the real node, as a reader would.

The images have the names that the pages give them, the trainer's being the stand-in. A page begins on a cluster that has nothing of
this project but Prometheus Operator's definitions, or, if its first line says `page: installed`, after the commands of README.md.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from documents import INSTALLED, ROOT, pages, shell_blocks
from lab import Lab
from operators import Operator
from shell_session import Session, copy_tree
from testbed import Node
from testbed.build import HELM, built
from testbed.monitors import monitor_definitions
from testbed.shell import run

PAGES = [page for page in pages() if shell_blocks(page, "node")]
SECONDS = 300
FOLDER = Path("/var/lib/sppo-demo")
"""What manifests/kind shares with the node."""
WORKSPACE = ROOT / "manifests/kind/workspace.yaml"
VOLUME = "sppo-demo"
NAMESPACE = "docs"
"""Of the reader's kubeconfig."""


@pytest.fixture(scope="module")
def bare(lab: Lab, node: Node, operator: Operator, image: Callable[[str], str]) -> Iterator[None]:
    """The cluster without the operator that the other tests use, and with images under the names of the pages."""
    version = (ROOT / "VERSION").read_text().strip()
    for prefix in ("localhost", "registry.example.com/team"):
        for name, built_as in (("operator", "operator"), ("trainer", "standin")):
            run(*node.ctr(), "image", "tag", "--force", image(built_as), f"{prefix}/sppo-{name}:{version}")
    empty(lab)
    monitors = str(monitor_definitions())
    lab.kubectl("apply", "--server-side", "-f", monitors)
    yield
    lab.kubectl("delete", "-f", monitors, "--ignore-not-found")
    empty(lab)
    operator.install()


def empty(lab: Lab) -> None:
    """Nothing of this project is left: runs, operator, roles, resource."""
    lab.kubectl("delete", "-k", str(ROOT / "manifests"), "--ignore-not-found", "--timeout=120s")


@pytest.fixture
def session(lab: Lab, bare: None, tmp_path: Path) -> Iterator[Session]:
    before = names(lab)
    lab.delete("persistentvolumes", "", VOLUME)  # of tests that were killed
    FOLDER.mkdir(exist_ok=True)
    FOLDER.chmod(0o777)
    lab.kubectl("create", "namespace", NAMESPACE)
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {
        "KUBECONFIG": str(kubeconfig(lab, tmp_path)),
        "PATH": os.pathsep.join([str(programs(lab, tmp_path / "bin")), os.environ["PATH"]]),
        "HOME": str(home),
        "COLUMNS": "120",
    }
    session = Session(copy_tree(tmp_path / "sppo"), tmp_path / "state", environment)
    yield session
    session.close()
    empty(lab)
    for namespace in names(lab) - before:
        lab.kubectl("delete", "namespace", namespace, "--timeout=120s")
    lab.delete("persistentvolumes", "", VOLUME)
    shutil.rmtree(FOLDER)


def names(lab: Lab) -> set[str]:
    return {item["metadata"]["name"] for item in lab.list("namespaces")}


def kubeconfig(lab: Lab, folder: Path) -> Path:
    """The node's, with a namespace of the reader's own."""
    config = yaml.safe_load(lab.kubeconfig.read_text())
    for context in config["contexts"]:
        context["context"]["namespace"] = NAMESPACE
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def programs(lab: Lab, folder: Path) -> Path:
    """A folder with kubectl, helm and this project's commands."""
    folder.mkdir()
    (folder / "kubectl").symlink_to(lab.kubeconfig.parent / "bin/kubectl")
    (folder / "helm").symlink_to(built(HELM))
    for command in ("sppo", "kubectl-sppo"):
        (folder / command).symlink_to(ROOT / ".venv/bin" / command)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_work_one_after_the_other(page: Path, session: Session, lab: Lab) -> None:
    todo = shell_blocks(page, "node")
    installed = page.read_text("utf-8").startswith(INSTALLED)
    if str(WORKSPACE.relative_to(ROOT)) not in "".join(block.script for block in todo):
        lab.kubectl("apply", "--namespace", NAMESPACE, "-f", str(WORKSPACE))
    if installed:
        todo = [*shell_blocks(ROOT / "README.md", "node"), *todo]
    for block in todo:
        session.run(block, SECONDS)
