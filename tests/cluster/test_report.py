"""`sppo report` of a run on a cluster: the claim is read by a pod of the user's own, and none is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab import Lab
from namespaces import Namespace, lend
from operators import Operator
from standin_runs import standin

MINUTES = 60.0
READERS = "sppo.dev/report"
CURVE = "<figcaption>Log-ratio before each update, nats<"
"""Only the claim has it."""


@pytest.fixture(scope="module")
def space(lab: Lab, operator: Operator) -> Iterator[Namespace]:
    """A namespace with a finished run of the stand-in, `demo`."""
    space = Namespace.create(lab, "report")
    space.apply(standin(iterations=2))
    lab.until_over(space.name, "demo", seconds=4 * MINUTES)
    yield space
    space.remove()


Report = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def report(lab: Lab, space: Namespace, tmp_path: Path) -> Iterator[Report]:
    """Starts the command in a folder of its own; at the end, no pod may be left, whatever the command met."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str, kubeconfig: Path = lab.kubeconfig) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "sppo_operator", "report", "demo", "-n", space.name, *options]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=os.environ | {"KUBECONFIG": str(kubeconfig)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        print(*process.communicate())
    lab.until("pods", space.name, lambda pods: not pods, selector=READERS, seconds=20)


def test_the_report_has_the_curves_and_the_answers_of_the_claim(
    lab: Lab, space: Namespace, report: Report, tmp_path: Path
) -> None:
    process = report()
    out, error = process.communicate(timeout=2 * MINUTES)
    assert (process.returncode, out) == (0, f"{tmp_path}/demo-report.html\n"), error
    assert error.startswith("Reading curves and answers from the run's claim (pod demo-report-")
    page = (tmp_path / "demo-report.html").read_text("utf-8")
    assert "Not in this report" not in page
    assert CURVE in page
    assert "Why &lt;b&gt;now&lt;/b&gt;?" in page
    assert "stand-in" in page, "the notes of an attempt"


def test_the_real_trainer_reads_its_own_artifacts(
    lab: Lab, space: Namespace, report: Report, image: Callable[[str], str], tmp_path: Path
) -> None:
    """In the trainer's image, as its user, in a namespace with Pod Security `restricted`."""
    from sppo_trainer.artifacts import Artifact, Manifest

    folder, kept = space.folder("demo"), tmp_path / "kept"
    shutil.copytree(folder, kept)
    run = lab.run(space.name, "demo")
    curves = {"lossOverEta2": [0.0123, 0.0045]}
    shutil.rmtree(folder)
    with Artifact(folder / "i1/train").draft() as draft:
        draft.path("curves.json").write_text(json.dumps(curves))
        manifest = Manifest(stage="train", iteration=1, config={}, inputs={}, rows=1, result={"attainedBest": 0.4321})
        draft.commit(manifest, {"host": "a-real-host"})
    (folder / "run.json").write_text(json.dumps({"digest": run["status"]["digest"]}))
    lend(folder)
    space.patch("demo", {"image": image("trainer")})
    try:
        process = report("--output", "real.html")
        _, error = process.communicate(timeout=3 * MINUTES)
    finally:
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        space.patch("demo", {"image": None})
    assert process.returncode == 0, error
    assert "warning" not in error
    page = (tmp_path / "real.html").read_text("utf-8")
    assert "loss, 2: 0.0045" in page
    assert "43\N{NO-BREAK SPACE}%" in page, "attainedBest"
    assert "a-real-host" in page


def test_without_the_right_to_create_pods_the_report_comes_from_the_status(
    lab: Lab, space: Namespace, report: Report, tmp_path: Path
) -> None:
    process = report(kubeconfig=reader(lab, space, tmp_path))
    out, error = process.communicate(timeout=1 * MINUTES)
    assert (process.returncode, out) == (0, f"{tmp_path}/demo-report.html\n"), error
    sentence = 'cannot create resource "pods" in API group "" in the namespace'
    assert "warning: not in the report: Curves, answers and versions of the claim: pods is forbidden: " in error
    assert sentence in error
    page = (tmp_path / "demo-report.html").read_text("utf-8")
    assert "Not in this report." in page
    assert sentence in page.replace("&quot;", '"')
    assert "Win rate with 95 % interval" in page
    assert CURVE not in page
    assert lab.list("pods", space.name, READERS) == []


def reader(lab: Lab, space: Namespace, folder: Path) -> Path:
    """The kubeconfig of somebody who may look at runs and do nothing else."""
    lab.kubectl("create", "serviceaccount", "kim", "-n", space.name)
    lab.kubectl("create", "role", "kim", "-n", space.name, "--verb=get", "--resource=spporuns.sppo.dev")
    account = f"--serviceaccount={space.name}:kim"
    lab.kubectl("create", "rolebinding", "kim", "-n", space.name, "--role=kim", account)
    token = lab.kubectl("create", "token", "kim", "-n", space.name).strip()
    config: dict[str, Any] = yaml.safe_load(lab.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def test_an_image_that_cannot_be_pulled_is_not_waited_for(
    lab: Lab, space: Namespace, report: Report, tmp_path: Path
) -> None:
    space.patch("demo", {"image": "localhost:1/none:1"})
    try:
        process = report("-o", "none.html")
        _, error = process.communicate(timeout=1.5 * MINUTES)
    finally:
        space.patch("demo", {"image": None})
    assert process.returncode == 0, error
    assert "cannot start (" in error
    assert "correct spec.image" in error
    assert "correct spec.image" in (tmp_path / "none.html").read_text("utf-8")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_command_that_is_stopped_leaves_no_pod_and_no_file(
    lab: Lab, space: Namespace, report: Report, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    hang = space.folder("demo") / "standin/hang"
    hang.touch()
    try:
        process = report()
        lab.until(
            "pods",
            space.name,
            lambda pods: any(pod["status"]["phase"] == "Running" for pod in pods.values()),
            selector=READERS,
            seconds=60,
        )
        process.send_signal(number)
        out, error = process.communicate(timeout=30)
    finally:
        hang.unlink()
    assert (process.returncode, out) == (status, ""), error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
