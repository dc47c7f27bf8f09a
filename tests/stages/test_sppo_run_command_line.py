"""The command `sppo` at its edges: wrong usage, things that are not there, and streams that are closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench import STANDIN, Bench, wait_until


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
        ("sppo validate - <&-", 66, "error: standard input is closed: name the file of an SPPORun\n"),
        (
            "sppo validate /dev/zero",
            78,
            "error: /dev/zero holds more than 3 MiB, which no API server takes: split it\n",
        ),
    ],
)
def test_streams_that_are_closed_or_full(bench: Bench, line: str, code: int, error: str) -> None:
    done = shell(bench, line)
    assert (done.returncode, done.stderr) == (code, error)


FULL = "error: standard output cannot be written (No space left on device): free space, or send it elsewhere"


@pytest.mark.parametrize(
    "line",
    [
        *("--help", "completion bash", "validate $FILE $FILE", "report $DIR", "report $DIR -o -"),
        *("watch $DIR", "logs $DIR", "describe $DIR"),
    ],
)
def test_a_full_disk_is_no_success(bench: Bench, line: str) -> None:
    bench.run()
    done = shell(bench, f"sppo {line} >/dev/full")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (74, FULL)
    assert "Traceback" not in done.stderr


def test_a_report_goes_to_standard_output(bench: Bench, tmp_path: Path) -> None:
    bench.run()
    done = shell(bench, f"cd {tmp_path}; export PYTHONIOENCODING=ascii; sppo report $DIR -o -")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("<!doctype html>")
    assert done.stdout.endswith("</html>\n")
    assert not (tmp_path / "-").exists()


def test_the_path_that_is_printed_can_be_used_whatever_the_locale(bench: Bench, tmp_path: Path) -> None:
    bench.run()
    done = shell(bench, f"export LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0; sppo report $DIR -o {tmp_path}/é.html")
    assert done.stdout == f"{tmp_path}/é.html\n"


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
        (["report", "./nowhere"], 66, "holds no run.yaml: give the --workspace of a run"),
        (
            ["report", "nowhere", "--kubeconfig", "{file}/k"],
            78,
            "error: the kubeconfig cannot be used",
        ),
        (["describe", ""], 66, 'error: "" is no name of a run and holds no run.yaml'),
        (["run", "{file}", "--workspace", "{file}/w"], 74, "/w cannot be used (Not a directory): name a folder"),
        (["run", "{file}", "--workspace", "{file}/.."], 64, "is where sppo keeps the state of the run: give the manif"),
        (["report", "{file}"], 66, "/run.yaml cannot be read (Not a directory): mend that, or name another folder"),
    ],
    ids=[
        "run",
        "validate",
        "report",
        "report of no folder",
        "no name",
        "workspace",
        "manifest as state",
        "report of a file",
    ],
)
def test_what_is_not_there_is_named(bench: Bench, arguments: list[str], code: int, said: str) -> None:
    refused = bench.run(*(argument.format(file=bench.file) for argument in arguments))
    assert refused.returncode == code
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_every_run_of_every_file_is_judged(bench: Bench, tmp_path: Path) -> None:
    text = json.dumps(bench.manifest)  # which is YAML
    claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: models}\n"
    several = tmp_path / "several.yaml"
    other = text.replace('"name": "demo"', '"name": "Other"')
    several.write_text(f"{claim}---\n{text}\n---\n{other}\n")
    judged = bench.run("validate", str(bench.file), str(several))
    assert judged.returncode == 78
    assert judged.stdout == (
        f"{bench.file}: spporun.sppo.dev/demo is valid\n{several}: spporun.sppo.dev/demo is valid\n"
    )
    passed, refused = judged.stderr.splitlines()[:2]
    assert passed == f"{several}: passed over 1 objects of other kinds"
    assert refused.startswith(f'error: {several}: The SPPORun "Other" is invalid: ')


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("{manifest}", 0, "spporun.sppo.dev/demo is valid\n"),
        ("", 78, "no object of kind SPPORun is in standard input: name a file that has one"),
        ("kind: Pod\n---\nkind: Service", 78, "no object of kind SPPORun is in standard input"),
        ("kind: Pod", 78, "error: apiVersion not set: use kind SPPORun and apiVersion sppo.dev/v1alpha1"),
        ("- 1", 78, "give a mapping with apiVersion, kind and spec"),
    ],
    ids=["a run", "nothing", "other kinds", "another kind", "a list"],
)
def test_standard_input_is_judged(text: str, code: int, says: str, bench: Bench) -> None:
    command = [sys.executable, "-m", "sppo_operator", "validate", "-"]
    given = text.replace("{manifest}", json.dumps(bench.manifest))
    judged = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert judged.returncode == code
    assert says in judged.stdout + judged.stderr


@pytest.mark.parametrize("command", ["watch", "logs", "describe"])
def test_the_reader_of_a_pipe_may_go_away(command: str, bench: Bench) -> None:
    bench.run()
    done = shell(bench, f"{{ sppo {command} $DIR 2>/dev/null; echo $? >&2; }} | true")
    assert (done.returncode, done.stderr in ("1\n", "0\n")) == (0, True)


def test_a_run_that_nobody_carries_out_is_not_watched_for_ever(bench: Bench) -> None:
    bench.start_and_hang("train 1").kill()
    wait_until(lambda: bench.living() == [])
    left = bench.run("watch", str(bench.workspace))
    assert left.returncode == 75
    assert left.stderr.startswith("error: no command carries the run out: sppo run FILE --workspace ")
    assert bench.run("describe", str(bench.workspace)).stdout.startswith("lab/demo is stopped.\n")


@pytest.mark.parametrize(
    ("asked", "named"),
    [(["--iteration", "99"], "iteration 99"), (["--iteration", "99", "--stage", "train"], "train 99")],
)
def test_a_log_that_is_not_there_is_named(asked: list[str], named: str, bench: Bench) -> None:
    bench.run()
    refused = bench.run("logs", str(bench.workspace), *asked)
    assert refused.returncode == 66
    assert refused.stderr.startswith(f"error: there is no log of {named}: started are prepare, ")


def test_a_log_is_followed_while_its_stage_runs(bench: Bench) -> None:
    command = bench.start_and_hang("train 1")
    follow = bench.start("logs", str(bench.workspace), "-f")
    assert follow.stdout
    assert follow.stdout.readline().startswith("0/3 chunks")
    command.terminate()
    _, error = follow.communicate(timeout=60)
    assert follow.returncode == 0
    assert error.startswith("==> train 1, attempt 1: ")
