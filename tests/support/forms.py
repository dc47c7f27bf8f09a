"""Commands that no test machine can carry out, checked as far as their programs' own files and parsers go."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from sppo_operator.commands.options import make_parser

ROOT = Path(__file__).parents[2]
HELM = {
    "history",
    "install",
    "lint",
    "package",
    "push",
    "rollback",
    "show",
    "status",
    "template",
    "uninstall",
    "upgrade",
}
KUBECTL = {
    *(
        "annotate",
        "apply",
        "create",
        "delete",
        "describe",
        "drain",
        "edit",
        "events",
        "exec",
        "explain",
        "get",
        "label",
    ),
    *("logs", "patch", "port-forward", "replace", "rollout", "scale", "top", "uncordon", "version", "wait"),
}
VALUES = ROOT / "charts/sppo-operator/values.yaml"


def check(command: str) -> None:
    """Raises AssertionError, which says what is wrong with the command."""
    for part in re.split(r" (?:&&|\|\|?) ", command):
        words = shlex.split(re.sub(r"\s+\d?[<>] *\S+", "", part))
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words.pop(0)
        program = Path(words[0]).name
        assert program in PROGRAMS, f"{command}: nothing checks the form of {program}: run it, or add it to forms.py"
        PROGRAMS[program](words[1:])


def options(words: list[str], *names: str) -> list[str]:
    """The values of these options, as `--name value` or `--name=value`."""
    found = [words[index + 1] for index, word in enumerate(words[:-1]) if word in names]
    return found + [word.partition("=")[2] for word in words if word.partition("=")[0] in names and "=" in word]


def docker(words: list[str]) -> None:
    assert words[0] in {"build", "push", "tag", "login", "run"}, words[0]
    if words[0] == "build":
        text = (ROOT / "Dockerfile").read_text("utf-8")
        assert set(options(words, "--target")) <= set(re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE))
        arguments = {argument.partition("=")[0] for argument in options(words, "--build-arg")}
        assert arguments <= set(re.findall(r"^ARG (\w+)", text, re.MULTILINE))


def make(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {word for word in words if "=" not in word} <= targets, words


def kind(words: list[str]) -> None:
    assert tuple(words[:2]) in {("create", "cluster"), ("delete", "cluster"), ("load", "docker-image")}, words
    assert all(word in {"--name", "--config"} for word in words if word.startswith("--")), words
    assert all((ROOT / file).exists() for file in options(words, "--config")), words


def helm(words: list[str]) -> None:
    """Subcommand and values: every --set names one that the chart has."""
    assert words[0] in HELM, words
    values = yaml.safe_load(VALUES.read_text("utf-8"))
    for setting in options(words, "--set", "--set-string"):
        for pair in setting.split(","):
            assert_value(values, pair.partition("=")[0])


def assert_value(values: Any, path: str) -> None:
    for name in path.split("."):
        if values == {}:  # such as labels, which may have any
            return
        assert name in values, f"the chart has no value {path}"
        values = values[name]


def sppo(words: list[str]) -> None:
    if len(words) == 1 and not words[0].startswith("-"):
        words = [*words, "--help"]  # a command that is named, not called
    try:
        make_parser("sppo").parse_args(words)
    except SystemExit as ended:
        if ended.code:
            raise AssertionError(f"sppo does not take {words}") from ended


def kubectl(words: list[str]) -> None:
    if words[0] == "sppo":
        sppo(words[1:])
        return
    assert words[0] in KUBECTL, words
    assert all((ROOT / file).exists() for file in options(words, "-f", "-k") if file != "-"), words


def git(words: list[str]) -> None:
    assert words[0] in {"clone", "checkout", "fetch", "tag"}, words


def python(words: list[str]) -> None:
    """Files and modules exist; a module is looked for where it lies in this tree."""
    assert all((ROOT / word).exists() for word in words if word.endswith(".py")), words
    for name in options(words, "-m"):
        path = Path(*name.replace("<stage>", "train").split(".")).with_suffix(".py")
        assert any((ROOT / folder / path).exists() for folder in ("", "operator", "trainer")), f"no module {name}"


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "docker": docker,
    "git": git,
    "helm": helm,
    "kind": kind,
    "kubectl": kubectl,
    "make": make,
    "sppo": sppo,
    "pytest": python,
    "python": python,
    "cd": lambda words: None,
}
