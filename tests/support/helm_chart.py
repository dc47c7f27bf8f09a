"""Helm as users call it, on the chart of this tree."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/sppo-operator"
RELEASE, NAMESPACE = "sppo-operator", "sppo-system"
Object = dict[str, Any]
Values = dict[str, Any]


class StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """As the API server reads manifests: a key that comes twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if doubled := {key for key in keys if keys.count(key) > 1} - {"<<"}:
            raise yaml.constructor.ConstructorError(None, None, f"keys come twice: {doubled}", node.start_mark)
        return dict(super().construct_mapping(node, deep=deep))


def objects(text: str) -> list[Object]:
    return [item for item in yaml.load_all(text, StrictLoader) if item]


@dataclass(frozen=True)
class Helm:
    binary: Path

    def render(
        self, values: Values | None = None, *, release: str = RELEASE, namespace: str = NAMESPACE
    ) -> list[Object]:
        """The objects of `helm template`; fails the test with Helm's message where it refuses."""
        finished = _template(self.binary, json.dumps(values or {}), release, namespace)
        assert finished.returncode == 0, finished.stderr
        return objects(finished.stdout)

    def refusal(self, values: Values, *, release: str = RELEASE) -> str:
        """What Helm says about values that it refuses."""
        finished = _template(self.binary, json.dumps(values), release, NAMESPACE)
        assert finished.returncode, "Helm takes these values"
        return finished.stderr

    def lint(self, values: Values) -> subprocess.CompletedProcess[str]:
        return _run(self.binary, "lint", "--strict", "--values=-", str(CHART), stdin=json.dumps(values))

    def notes(self, values: Values) -> str:
        """What users read after `helm install`."""
        arguments = ("install", RELEASE, str(CHART), "--namespace", NAMESPACE, "--values=-", "--dry-run=client")
        finished = _run(self.binary, *arguments, stdin=json.dumps(values))
        assert finished.returncode == 0, finished.stderr
        return finished.stdout.partition("\nNOTES:\n")[2]


@cache
def _template(binary: Path, values: str, release: str, namespace: str) -> subprocess.CompletedProcess[str]:
    return _run(binary, "template", release, str(CHART), "--namespace", namespace, "--values=-", stdin=values)


def _run(binary: Path, *arguments: str, stdin: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binary, *arguments], input=stdin, capture_output=True, text=True, check=False)


def one(items: list[Object], kind: str, name: str = RELEASE) -> Object:
    [found] = [item for item in items if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def of_kind(items: list[Object], kind: str) -> list[Object]:
    return [item for item in items if item["kind"] == kind]


def pod(items: list[Object]) -> Object:
    """The template of the operator's pods."""
    [deployment] = of_kind(items, "Deployment")
    template: Object = deployment["spec"]["template"]
    return template


def container(items: list[Object]) -> Object:
    [found] = pod(items)["spec"]["containers"]
    return dict(found)
