"""The command line itself: help, suggestions, and completion in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sppo_operator.commands.options import EXAMPLES, make_parser

BIN = Path(sys.executable).parent
COMMANDS = sorted(name for name in EXAMPLES if name)


def sppo(*arguments: str, program: str = "sppo", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / program, *arguments], env=os.environ | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_a_command_line_that_is_understood(name: str) -> None:
    parser = make_parser("sppo")
    lines = [line.strip().split("  ")[0] for line in EXAMPLES[name].format(prog="sppo").splitlines()]
    for line in lines:
        words = line.partition("sppo ")[2].split(" |")[0].split(" >")[0].rstrip(")").split()
        if line.startswith(("sppo ", "helm ", "source ")):
            assert parser.parse_args(words).command == name


def test_help_is_given_when_nothing_is_asked() -> None:
    alone = sppo()
    assert (alone.returncode, alone.stderr) == (0, "")
    assert alone.stdout == sppo("--help").stdout
    order = [alone.stdout.index(f"\n    {name}") for name in ("run", "validate", "watch", "logs", "describe", "report")]
    assert order == sorted(order)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_fits_into_80_columns(name: str) -> None:
    text = sppo(name, "--help", COLUMNS="80").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith(f"usage: sppo {name}")
    assert "examples:" in text


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["wacth", "demo"], "watch"),
        (["logs", "demo", "--folow"], "--follow"),
        (["logs", "x", "--stage", "trian"], "train"),
    ],
)
def test_what_was_probably_meant_is_said(arguments: list[str], meant: str) -> None:
    refused = sppo(*arguments)
    assert refused.returncode == 64
    assert f"(did you mean {meant}?)" in refused.stderr


def test_the_option_of_another_command_is_not_suggested() -> None:
    refused = sppo("validate", "demo.yaml", "--plain")
    assert refused.returncode == 64
    assert refused.stderr.endswith("error: unrecognized arguments: --plain: see sppo validate --help\n")


def test_attempts_count_from_one() -> None:
    refused = sppo("logs", "demo", "--attempt", "0")
    assert refused.returncode == 64
    assert "argument --attempt: the first is 1" in refused.stderr


def test_the_plugin_speaks_of_itself_as_kubectl_does() -> None:
    assert sppo("watch", "--help", program="kubectl-sppo").stdout.startswith("usage: kubectl sppo watch")


def test_help_and_completion_import_little() -> None:
    code = "import sys; from sppo_operator.commands.cli import make_parser; make_parser('sppo').format_help(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"aiohttp", "kopf", "rich", "jsonschema", "argcomplete"}.isdisjoint(modules)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a run, a folder without, and a manifest."""
    for name in ("deck", "deal"):
        (tmp_path / name).mkdir()
    (tmp_path / "deck/run.yaml").touch()
    (tmp_path / "demo.yaml").touch()
    return tmp_path


def completed(shell: str, line: str, place: Path) -> list[str]:
    """What a real shell offers, or puts, after the last word of the line; there is no cluster."""
    scripts = {
        "bash": f'eval "$(sppo completion bash)"; COMP_LINE="{line}"; COMP_POINT={len(line)}; COMP_TYPE=63; '
        'COMP_WORDBREAKS=" "; _python_argcomplete sppo 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"',
        "fish": f"sppo completion fish | source; complete -C '{line}'",
    }
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(place), "KUBECONFIG": str(place / "none")}
    done = subprocess.run(
        [shell, "-c", scripts[shell]], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    return [word.split("\t")[0].strip() for word in done.stdout.split("\n") if word.strip()]


@pytest.mark.parametrize("shell", ["bash", "fish"])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sppo wa", ["watch"]),
        ("sppo describe de", ["deck/"]),
        ("sppo logs deck --stage ", ["evaluate", "generate", "prepare", "score", "train"]),
        ("sppo logs deck --fo", ["--follow"]),
        ("sppo validate dem", ["demo.yaml"]),
        ("sppo run demo.yaml --workspace de", ["deal/", "deck/"]),
        ("sppo completion z", ["zsh"]),
    ],
)
def test_a_shell_completes(shell: str, line: str, words: list[str], place: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    assert sorted(completed(shell, line, place)) == words


def test_kubectl_is_told_not_to_add_a_blank_after_a_folder(place: Path) -> None:
    done = subprocess.run(
        [BIN / "kubectl_complete-sppo", "describe", "dec"],
        cwd=place,
        env={"KUBECONFIG": str(place / "none")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "deck/\n:6\n"


def test_zsh_takes_the_completion(place: Path) -> None:
    if not shutil.which("zsh"):
        pytest.skip("zsh is not installed")
    script = (
        "autoload -U compinit; compinit -u; source <(sppo completion zsh); print $_comps[sppo] $_comps[kubectl-sppo]"
    )
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(place), "ZDOTDIR": str(place)}
    done = subprocess.run(["zsh", "-fc", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["_python_argcomplete", "_python_argcomplete"]
