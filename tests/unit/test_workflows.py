"""The GitHub files: well-formed, pinned, with few rights, and calling make targets that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

of_each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as true.
    return {"on" if key is True else key: value for key, value in yaml.safe_load(path.read_text()).items()}


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in own_jobs(path) for step in job["steps"]]


def own_jobs(path: Path) -> list[dict[str, Any]]:
    """Those that do not call another workflow."""
    return [job for job in read(path)["jobs"].values() if "uses" not in job]


@of_each_workflow
def test_each_make_target_exists(path: Path) -> None:
    called = {target for step in steps(path) for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))}
    assert called
    assert called <= TARGETS


@of_each_workflow
def test_actions_are_pinned_by_commit_and_say_their_version(path: Path) -> None:
    used = re.findall(r"uses: (.+)", path.read_text())
    assert used
    for action in used:
        if action.startswith("./"):
            assert "workflow_call" in read(ROOT / action)["on"]
            continue
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


@of_each_workflow
def test_rights_are_named_and_few(path: Path) -> None:
    workflow = read(path)
    granted = [workflow["permissions"], *(job.get("permissions", {}) for job in workflow["jobs"].values())]
    writing = {name for rights in granted for name, right in rights.items() if right != "read"}
    assert writing == ({"contents"} if path.stem == "release" else set())
    assert all(
        step["with"]["persist-credentials"] is False for step in steps(path) if "checkout" in step.get("uses", "")
    )


@of_each_workflow
def test_no_expression_is_pasted_into_a_shell(path: Path) -> None:
    assert not [step["run"] for step in steps(path) if "${{" in step.get("run", "")]


@of_each_workflow
def test_every_job_ends(path: Path) -> None:
    assert all(job["timeout-minutes"] <= 240 for job in own_jobs(path))


def test_nothing_is_published_before_the_same_commit_passed_checks_tests_and_scan() -> None:
    jobs = read(ROOT / ".github/workflows/release.yml")["jobs"]
    needed = [jobs[name] for name in jobs["publish"]["needs"]]
    assert {job["uses"] for job in needed} == {f"./.github/workflows/{name}.yml" for name in ("check", "test", "scan")}


def test_every_workflow_is_known() -> None:
    assert [path.stem for path in WORKFLOWS] == ["check", "release", "scan", "test"]


@pytest.mark.parametrize("path", [form for form in FORMS if form.stem != "config"], ids=lambda path: path.stem)
def test_forms_ask_with_fields_that_github_has(path: Path) -> None:
    form = read(path)
    assert {"name", "description", "body"} <= form.keys()
    fields = form["body"]
    assert {field["type"] for field in fields} <= {"markdown", "textarea", "input", "dropdown", "checkboxes"}
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
