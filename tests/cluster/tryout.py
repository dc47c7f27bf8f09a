"""`make operator`: the operator, a trainer and the demo's workspace on the node that `make cluster` booted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import images
from lab import Lab
from namespaces import Namespace, lend
from operators import Operator
from testbed import Node

ROOT = Path(__file__).parents[2]
CLAIM = "sppo-demo"


def main() -> None:
    node = Node()
    if not node.healthy():
        sys.exit("error: no node runs here: boot one with `make cluster`")
    print("images: building what is not there yet (10 minutes the first time) ...", flush=True)
    names = {"operator": images.operator_image(), "trainer": images.trainer_image()}
    for name in names.values():
        images.load(name, node.ctr())
    lab = Lab(node.kubeconfig)
    print("operator: kubectl apply -k manifests ...", flush=True)
    Operator(lab, names["operator"], names["trainer"]).install()
    folder = node.state / "workspaces" / CLAIM
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)  # a hostPath volume keeps its owner, and pods run as user 1000
    subprocess.run([sys.executable, ROOT / "demo/workspace.py", folder], check=True)
    lend(folder)
    if lab.get("persistentvolumeclaims", "default", CLAIM) is None:
        Namespace(lab, "default", folder).claim(CLAIM, folder)
    print(f"ready; the demo's workspace is {folder}. Try:\n  kubectl apply -f manifests/examples/demo.yaml")


if __name__ == "__main__":
    main()
