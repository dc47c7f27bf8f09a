"""The images as pods of a namespace with Pod Security `restricted`: what they run as, what they can write, what they hold."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lab import Lab
from namespaces import Namespace

LOOK = """
import importlib, importlib.metadata, json, os, sys, sysconfig
from pathlib import Path

def writable(folder):
    try:
        Path(folder, "probe").touch()
    except OSError:
        return False
    return True

for name in sys.argv[2:]:
    importlib.import_module(name)
stdlib = Path(sysconfig.get_path("stdlib"))
print(json.dumps({
    "user": os.getuid(),
    "python": ".".join(map(str, sys.version_info[:2])),
    "writable": [folder for folder in ("/", "/opt/sppo", "/tmp", os.environ["HOME"], ".") if writable(folder)],
    "home": os.environ["HOME"],
    "uncompiled": sorted(name for name, module in sys.modules.items()
                         if (file := getattr(module, "__file__", None)) and file.endswith(".py")
                         and Path(file).exists() and not Path(importlib.util.cache_from_source(file)).exists()),
    "packages": {found.name: found.version for found in importlib.metadata.distributions()},
}))
"""


@pytest.fixture(scope="module")
def look(lab: Lab, image: Callable[[str], str]) -> Iterator[Callable[..., dict[str, Any]]]:
    """What a pod of an image finds after it has imported some modules."""
    space = Namespace.create(lab, "images")

    def look(target: str, *modules: str) -> dict[str, Any]:
        container = {
            "name": "look",
            "image": image(target),
            "command": ["python", "-c", LOOK, "--", *modules],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "home", "mountPath": "/home/sppo"}],
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            # No user: the image's own has to be a number other than 0, or the kubelet refuses it.
            "securityContext": {"runAsNonRoot": True, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "home", "emptyDir": {}}],
        }
        lab.create("pods", space.name, {"metadata": {"name": target}, "spec": spec})
        ended = lab.until(
            "pods",
            space.name,
            lambda pods: phase(pods[target]) in ("Succeeded", "Failed") and pods[target],
            seconds=300,
        )
        log = lab.log(space.name, target)
        lab.delete("pods", space.name, target)
        assert phase(ended) == "Succeeded", log
        return dict(json.loads(log.splitlines()[-1]))

    yield look
    space.remove()


def phase(pod: dict[str, Any]) -> str:
    return str(pod["status"].get("phase"))


MODULES = {
    "operator": ["sppo_operator.main", "sppo_operator.commands.cli", "sppo_operator.cel"],
    "standin": ["sppo_trainer.frame"],
    "trainer": ["torch", "transformers", "vllm", "s3fs", "sppo_trainer.train"],
}


@pytest.mark.parametrize("target", MODULES)
def test_an_image_runs_locked_down(look: Callable[..., dict[str, Any]], target: str) -> None:
    found = look(target, *MODULES[target])
    assert found["user"] == 1000
    assert found["writable"] == ["/tmp", "/home/sppo", "."]
    # The images have the tests' own wheels, or equal digests could not be promised.
    here = {package.name: package.version for package in importlib.metadata.distributions()}
    assert found["packages"] == {name: here.get(name) for name in found["packages"]}
    assert [name for name in found["uncompiled"] if not name.startswith(("__main__", "sppo_trainer"))] == []
