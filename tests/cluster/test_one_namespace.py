"""The operator that manifests/single-namespace installs: for the runs of its own namespace, with no right beyond it."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab import Lab, condition
from namespaces import Namespace
from operators import MANIFESTS, Operator
from standin_runs import standin

MINUTES = 60.0


def test_an_operator_of_one_namespace_leaves_other_namespaces_alone(
    lab: Lab, namespace: Namespace, operator: Operator, tmp_path: Path
) -> None:
    shutil.copytree(MANIFESTS, tmp_path, dirs_exist_ok=True)
    overlay = tmp_path / "single-namespace/kustomization.yaml"
    overlay.write_text(overlay.read_text().replace("namespace: sppo\n", f"namespace: {namespace.name}\n"))
    own = Operator(lab, operator.image, operator.trainer, namespace.name, overlay.parent)
    elsewhere = Namespace.create(lab, "elsewhere")
    operator.scale(0)
    try:
        own.install()
        elsewhere.apply(standin())
        namespace.apply(standin(stages={"train": {"workers": 2}}))
        run = lab.until_over(namespace.name, "demo", seconds=4 * MINUTES)
        assert condition(run, "Succeeded")["status"] == "True"
        assert "status" not in lab.run(elsewhere.name, "demo")
        assert own.forbidden() == []
    finally:
        own.scale(0)
        operator.scale(2)
    assert condition(lab.until_over(elsewhere.name, "demo", seconds=3 * MINUTES), "Succeeded")["status"] == "True"
    elsewhere.remove()
