"""The documentation holds together: links, markers, generated parts, and commands that no test can run for real."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from pathlib import Path
from types import ModuleType

import forms
import pytest
import yaml
from documents import (
    INDEX,
    INSTALLED,
    LIST,
    NOT_RUN,
    ROOT,
    SHELL,
    Block,
    anchors,
    blocks,
    inline_commands,
    links,
    listed,
    not_run,
    pages,
)
from sppo_operator.validation import admit

TEXTS = [*pages(), *(ROOT / name for name in ("CHANGELOG.md", "DESIGN.md", "SECURITY.md"))]
NOT_COMMANDS = {"text", "yaml", "json", "promql", "jsonl", "diff", "html"}
BLOCKS = [block for page in pages() for block in blocks(page)]
COMMANDS = [block for block in BLOCKS if block.language in SHELL]

of_each_text = pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
of_each_command = pytest.mark.parametrize("block", COMMANDS, ids=str)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@of_each_text
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue  # of the outside world
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def test_the_index_leads_to_every_page() -> None:
    reached = {(INDEX.parent / target.partition("#")[0]).resolve() for target in links(INDEX)}
    assert {page for page in pages() if page.parent == INDEX.parent} - {INDEX} <= reached


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_names_a_language_that_the_tests_know(block: Block) -> None:
    assert block.language in SHELL | NOT_COMMANDS


@of_each_command
def test_every_command_says_how_it_is_verified(block: Block) -> None:
    assert block.kind, f"{block}: put a marker on the line before the block; docs/README.md has them"
    assert bool(block.reason) == (block.kind == "form"), f"{block}: a form, and nothing else, says why it is not run"
    assert block.commands


@pytest.mark.parametrize("block", [block for block in COMMANDS if block.kind == "form"], ids=str)
def test_what_is_not_run_is_right_in_form(block: Block) -> None:
    for command in block.commands:
        forms.check(command)


@of_each_text
def test_commands_within_sentences_are_right_in_form(page: Path) -> None:
    for command in inline_commands(page):
        forms.check(command)


def test_what_no_test_runs_is_listed() -> None:
    found = LIST.search(INDEX.read_text("utf-8"))
    assert found is not None
    assert found[0] == listed(), "run `make docs`"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_that_is_not_run_has_a_reason(page: Path) -> None:
    missing = [command for command, why in not_run(page).items() if not why]
    assert not missing, "run it in a block, or give the reason in NOT_RUN of tests/support/documents.py"


def test_reasons_are_given_for_commands_that_are_not_run() -> None:
    assert NOT_RUN.keys() <= {command for page in pages() for command in not_run(page)}


def test_the_list_is_short() -> None:
    assert len([command for page in pages() for command in not_run(page)]) <= 25


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_manifests_on_the_pages_are_valid(block: Block) -> None:
    for item in yaml.safe_load_all(block.text):
        if isinstance(item, dict) and item.get("kind") == "SPPORun":
            admit(item)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_says_at_its_top_if_it_begins_with_an_installation(page: Path) -> None:
    lines = page.read_text("utf-8").splitlines()
    assert INSTALLED not in lines[1:]


def test_the_tree_of_the_readme_names_what_is_there() -> None:
    """A line that begins at the margin names a folder or file; the files on lines below are in that folder."""
    readme = (ROOT / "README.md").read_text("utf-8")
    tree = readme.partition("## What is where")[2].partition("```text\n")[2].partition("```")[0]
    folder, named = ROOT, set()
    for line in tree.splitlines():
        names = re.match(r" *((?:\S+ )*\S+)  ", line + "  ")
        assert names is not None
        if not line.startswith(" "):
            folder = ROOT / names[1]
            named.add(folder)
        else:
            named |= {folder / name for name in names[1].split()}
    assert len(named) > 60
    assert not [path for path in named if not path.exists()]


def test_the_reference_is_that_of_the_resource() -> None:
    written = (ROOT / "docs/reference.md").read_text("utf-8")
    assert written == load(ROOT / "docs/reference.py").reference(), "run `make docs`"


def test_contributing_fits_on_a_screen() -> None:
    lines = (ROOT / "CONTRIBUTING.md").read_text("utf-8").splitlines()
    assert len([part for line in lines for part in textwrap.wrap(line, 100) or [""]]) <= 45
