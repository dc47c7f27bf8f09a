"""The command `sppo` at its edges: wrong usage, things that are not there, and streams that are closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from bench import STANDIN, Bench


def shell(bench: Bench, line: str) -> subprocess.CompletedProcess[str]:
    """A line of sh in which `sppo` is the command and $FILE and $DIR are the bench's."""
    bench.file.write_text(json.dumps(bench.manifest))
    environment = os.environ | {"PYTHONPATH": str(STANDIN), "SPPO_STANDIN": str(bench.notes)}
    environment |= {"PYTHON": sys.executable, "FILE": str(bench.file), "DIR": str(bench.workspace)}
    script = f'sppo() {{ "$PYTHON" -m sppo_operator "$@"; }}; {line}'
    return subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("line", "code", "error"),
    [
        ("sppo validate $FILE >&-", 0, ""),
        ("sppo run $FILE --workspace $DIR >&-", 0, ""),
        ("sppo run $FILE --workspace $DIR >/dev/full", 0, ""),
        ("sppo validate $FILE 2>&-", 0, ""),
        ("sppo validate missing 2>&-", 66, ""),
        ("{ sppo validate $FILE; echo $? >&2; } | true", 0, "1\n"),
    ],
)
def test_streams_that_are_closed_or_full(bench: Bench, line: str, code: int, error: str) -> None:
    done = shell(bench, line)
    assert (done.returncode, done.stderr) == (code, error)


@pytest.mark.parametrize("line", ["sppo walk", "sppo run $FILE", "sppo validate", "sppo report $DIR more"])
def test_wrong_usage_is_the_users_fault(bench: Bench, line: str) -> None:
    refused = shell(bench, line)
    assert refused.returncode == 64
    assert refused.stderr.startswith("usage: sppo")
    assert "--help" in refused.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        ("run.yaml/", 66, "/run.yaml cannot be read (Is a directory): mend that, or name another folder"),
        ("lab", 74, "/lab/demo/logs cannot be written (Not a directory): free space or mend it, and start again"),
        (".sppo.lock/", 74, "cannot be used (Is a directory): name a folder that can be written"),
    ],
)
def test_what_stands_in_the_way_is_named(bench: Bench, found: str, code: int, said: str) -> None:
    bench.workspace.mkdir()
    path = bench.workspace / found
    path.mkdir() if found.endswith("/") else path.touch()
    refused = bench.run()
    assert refused.returncode == code
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "missing.yaml", "--workspace", "w"], 66, "error: missing.yaml cannot be read (No such file or"),
        (["validate", "missing.yaml"], 66, "error: missing.yaml cannot be read (No such file or directory)"),
        (["report", "nowhere"], 66, "holds no run.yaml: give the --workspace of a run"),
        (["run", "{file}", "--workspace", "{file}/w"], 74, "/w cannot be used (Not a directory): name a folder"),
        (["run", "{file}", "--workspace", "{file}/.."], 64, "is where sppo keeps the state of the run: give the manif"),
        (["report", "{file}"], 66, "/run.yaml cannot be read (Not a directory): mend that, or name another folder"),
    ],
    ids=["run", "validate", "report", "workspace", "manifest as state", "report of a file"],
)
def test_what_is_not_there_is_named(bench: Bench, arguments: list[str], code: int, said: str) -> None:
    refused = bench.run(*(argument.format(file=bench.file) for argument in arguments))
    assert refused.returncode == code
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1
