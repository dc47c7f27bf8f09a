"""What runs the pages' commands: it notices what fails, what hangs and what a page's next block relies on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import forms
import pytest
from documents import Block, anchors, begins, blocks, inline_commands, links, parts
from shell_session import Session


def block(text: str, marker: str = "<!-- test: laptop -->", language: str = "console") -> Block:
    return Block(page=Path("/nowhere/page.md"), line=1, language=language, text=text, marker=marker)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    session = Session(tmp_path, tmp_path / "state", os.environ)
    yield session
    session.close()


@pytest.mark.parametrize("commands", ["$ false\n$ true", "$ false | cat", "$ echo $UNSET_NAME", "$ no-such-program"])
def test_a_command_that_fails_fails_the_block(session: Session, monkeypatch: pytest.MonkeyPatch, commands: str) -> None:
    monkeypatch.setattr(Block, "__str__", lambda self: "page.md:1")
    with pytest.raises(AssertionError, match=r"page.md:1 ended with [1-9]"):
        session.run(block(commands), 20)


def test_a_block_that_does_not_end_is_ended(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Block, "__str__", lambda self: "page.md:1")
    with pytest.raises(AssertionError, match="not over after 1 s; it printed:\nbefore"):
        session.run(block("$ echo before; sleep 600"), 1)


def test_what_a_block_exports_and_where_it_goes_the_next_one_sees(session: Session, tmp_path: Path) -> None:
    session.run(block("$ mkdir inside && cd inside\n$ export GREETING='it is me'"), 20)
    assert session.run(block('$ echo "$GREETING from $PWD"'), 20) == f"it is me from {tmp_path}/inside\n"


def test_a_command_without_end_is_ended_by_what_it_prints(session: Session) -> None:
    marker = "<!-- test: laptop, until second line -->"
    assert session.run(block("$ echo first; echo second line; sleep 600", marker), 20) == "first\nsecond line\n"


def test_a_text_that_never_comes_fails_the_block(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Block, "__str__", lambda self: "page.md:1")
    with pytest.raises(AssertionError, match="did not print 'second'"):
        session.run(block("$ echo first", "<!-- test: laptop, until second -->"), 20)


def test_output_and_comments_are_no_commands() -> None:
    text = "$ make check    # minutes\nok\n$ helm install x \\\n    --set a=b\nNAME   x"
    assert block(text).commands == ["make check", "helm install x --set a=b"]


WRONG = {
    "a target that is not there": "make everything",
    "a stage of the Dockerfile that is not there": "docker build --target trainr .",
    "a build argument that is not there": "docker build --build-arg=ENGIN=vllm .",
    "a value that the chart does not have": "helm install x charts/sppo-operator --set image.repo=x",
    "a file that is not there": "kubectl apply -f manifests/examples/none.yaml",
    "an option that sppo does not have": ".venv/bin/sppo run x.yaml --workspce .demo",
    "a module that is not there": ".venv/bin/python -m monitoring.previw run",
    "a script that is not there": "python docs/tuning/spred.py .demo",
    "an unknown program": "frobnicate",
}


@pytest.mark.parametrize("command", WRONG.values(), ids=WRONG)
def test_a_wrong_form_is_found(command: str) -> None:
    with pytest.raises(AssertionError):
        forms.check(command)


@pytest.mark.parametrize("command", ["helm install x", "sppo run x", "make demo", ".venv/bin/x y", "python -m a.b"])
def test_commands_within_sentences_are_found(tmp_path: Path, command: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"A `word`, `makeshift work` and the command\n`{command}`.\n")
    assert inline_commands(page) == [command]


@pytest.mark.parametrize(
    ("said", "same"),
    [
        ("sppo describe NAME", True),
        ("sppo describe", True),
        ("sppo describe demo --plain", False),
        ("sppo describe other", False),
        ("sppo watch", False),
    ],
)
def test_a_command_within_a_sentence_is_run_if_a_block_begins_with_it(said: str, same: bool) -> None:
    [_, done, _] = parts(block("$ true && .venv/bin/sppo describe demo | cat"))
    assert begins(done, said) is same


def test_a_page_is_read_as_github_reads_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `title`, *twice*\n\n[x](other.md#a) `[no](link)`\n\n# A `title`, *twice*\n\n"
        "<!-- test: form why -->\n```sh\n# not a heading\nmake test\n```\n"
    )
    assert anchors(page) == {"a-title-twice", "a-title-twice-1"}
    assert links(page) == ["other.md#a"]
    [found] = blocks(page)
    assert (found.kind, found.reason, found.commands, found.line) == ("form", "why", ["make test"], 8)
