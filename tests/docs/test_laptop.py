"""The commands of the documentation that need no cluster, run page by page in a copy of this tree.

The copy's stages are the stand-in's, which keep the contract and compute nothing, and its model is an empty folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import ROOT, pages, shell_blocks
from shell_session import Session, copy_tree

SECONDS = 300
PAGES = [page for page in pages() if shell_blocks(page, "laptop")]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    path = os.pathsep.join([str(ROOT / "tests/stages/standin"), os.environ.get("PYTHONPATH", "")])
    home = tmp_path / "home"
    home.mkdir()
    tree = copy_tree(tmp_path / "sppo")
    session = Session(tree, tmp_path / "state", os.environ | {"PYTHONPATH": path, "HOME": str(home), "COLUMNS": "120"})
    yield session
    session.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_work_one_after_the_other(page: Path, session: Session) -> None:
    for block in shell_blocks(page, "laptop"):
        session.run(block, SECONDS)
