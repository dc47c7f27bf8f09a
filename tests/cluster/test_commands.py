"""`kubectl sppo` on a real cluster: kubectl finds the plugin, and what it says about a failed run mends it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab, condition
from namespaces import Namespace
from operators import Operator
from standin_runs import failing, standin

MINUTES = 60.0
RUNS = {
    "user-fault": {"stages": failing("score:1:user")},
    "crash": {"stages": failing("train:1:crash"), "retries": {"limit": 2}},
    "no-image": {"image": "localhost/nobody/has-this:1"},
}


@pytest.fixture(scope="module")
def space(lab: Lab, operator: Operator) -> Iterator[Namespace]:
    space = Namespace.create(lab, "commands")
    for name, spec in RUNS.items():
        space.apply(standin(name, **spec))
    yield space
    space.remove()


def start(lab: Lab, *arguments: str) -> subprocess.Popen[str]:
    """kubectl as a user has it: the plugin on the path, the cluster in KUBECONFIG."""
    folders = [str(lab.kubeconfig.parent / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(folders), "KUBECONFIG": str(lab.kubeconfig)}
    pipe = subprocess.PIPE
    return subprocess.Popen(["kubectl", *arguments], env=environment, stdout=pipe, stderr=pipe, text=True)


def kubectl(lab: Lab, *arguments: str) -> tuple[int, str, str]:
    command = start(lab, *arguments)
    out, err = command.communicate(timeout=60)
    return command.returncode, out, err


def test_a_run_is_watched_to_its_end(lab: Lab, space: Namespace) -> None:
    command = start(lab, "sppo", "watch", "crash", "-n", space.name)
    follower = start(lab, "sppo", "logs", "crash", "-n", space.name, "-f")
    out, err = command.communicate(timeout=6 * MINUTES)
    assert (command.returncode, err) == (0, "")
    assert "train 1: Application: RuntimeError: the stand-in was told to crash" in out
    assert "train 1: started, attempt 2" in out
    assert out.endswith(f"Report: kubectl sppo report crash -n {space.name}\n")
    out, err = follower.communicate(timeout=60)
    assert (follower.returncode, "3/3 chunks" in out) == (0, True)
    for step in ("train 1, attempt 1", "train 1, attempt 2", "evaluate 1, attempt 1"):
        assert f"==> {step}: pod crash-i1-" in err


def test_a_failed_run_is_explained_and_the_command_that_is_given_mends_it(lab: Lab, space: Namespace) -> None:
    lab.until_over(space.name, "user-fault", seconds=4 * MINUTES)
    code, out, err = kubectl(lab, "sppo", "describe", "user-fault", "-n", space.name)
    assert (code, err) == (0, "")
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0] == f"{space.name}/user-fault failed in score 1, attempt 1, exit code 65."
    assert "prompts.source has a bad line 7: mend it" in lines
    assert any("StageFailed" in line for line in lines)
    assert any(
        line.startswith("The end of the log of score 1, attempt 1: pod user-fault-i1-score-a1-0-") for line in lines
    )
    (remedy,) = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    assert shlex.split(remedy)[:2] == ["kubectl", "annotate"]
    code, _, err = kubectl(lab, *shlex.split(remedy)[1:])
    assert (code, err) == (0, "")
    lab.until_run(space.name, "user-fault", lambda run: condition(run, "Succeeded")["status"] == "Unknown")
    run = lab.until_over(space.name, "user-fault", seconds=4 * MINUTES)
    assert condition(run, "Succeeded")["status"] == "True"


def test_logs_are_those_of_the_stage_that_matters_or_was_named(lab: Lab, space: Namespace) -> None:
    lab.until_over(space.name, "crash", seconds=6 * MINUTES)
    named = ("sppo", "logs", "crash", "-n", space.name, "--stage", "train")
    code, out, err = kubectl(lab, *named)
    assert (code, "3/3 chunks, 0s left" in out) == (0, True)
    assert err.startswith("==> train 1, attempt 2: pod crash-i1-train-a2-0-")
    code, out, err = kubectl(lab, *named, "--previous", "--raw")
    assert err.startswith("==> train 1, attempt 1: pod crash-i1-train-a1-0-")
    assert (code, out.startswith('{"progress": {"done": 0, ')) == (0, True)


def test_a_pod_that_cannot_start_is_explained(lab: Lab, space: Namespace) -> None:
    lab.until_run(
        space.name, "no-image", lambda run: condition(run, "Progressing")["reason"] == "PodsStuck", seconds=3 * MINUTES
    )
    code, out, _ = kubectl(lab, "sppo", "describe", "no-image", "-n", space.name)
    assert code == 0
    assert out.startswith(f"{space.name}/no-image does not get on.\n")
    assert "correct spec.image" in " ".join(out.split())
    code, out, err = kubectl(lab, "sppo", "logs", "no-image", "-n", space.name)
    assert (code, out) == (69, "")
    assert "has no log yet" in err


def test_kubectl_completes_the_plugin(lab: Lab, space: Namespace) -> None:
    code, out, _ = kubectl(lab, "__complete", "sppo", "describe", "-n", space.name, "")
    assert (code, out.splitlines()[:4]) == (0, ["crash", "no-image", "user-fault", ":4"])
    code, out, _ = kubectl(lab, "__complete", "sppo", "wa")
    assert (code, out.splitlines()[0]) == (0, "watch")
