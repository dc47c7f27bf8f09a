"""An operator that is a process of this machine and serves one namespace, with the rights that a test gives it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from lab import Lab
from namespaces import Namespace
from operators import MANIFESTS, NAME
from prometheus_client.parser import text_string_to_metric_families
from standin_notes import eventually

PORTS = iter(range(21000, 32000))
"""Below those that the kernel takes for outgoing connections, of which an operator has several."""
# A busy machine must not cost it the lease; relists show what a watch missed.
TIMES = "--lease-seconds 300 --renew-seconds 200 --retry-seconds 1 --relist-seconds 1"


@dataclass(frozen=True)
class Right:
    """One verb on one resource, as a role gives it."""

    verb: str
    resource: str
    group: str
    names: tuple[str, ...]
    """Of the objects that it is limited to, if any."""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"

    def rule(self) -> dict[str, Any]:
        names = {"resourceNames": list(self.names)} if self.names else {}
        return {"apiGroups": [self.group], "resources": [self.resource], "verbs": [self.verb], **names}


def rights() -> list[Right]:
    """All that the manifests give to the operator."""
    roles = yaml.safe_load_all((MANIFESTS / "operator/rbac.yaml").read_text("utf-8"))
    return [
        Right(verb, resource, group, tuple(rule.get("resourceNames", ())))
        for role in roles
        for rule in role.get("rules", ())
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


class OperatorProcess:
    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process = process
        self._port = port
        self._log = log

    def count(self, metric: str, **labels: str) -> float:
        """The sum of the series that have these labels, in what the operator tells Prometheus; 0 before it answers."""
        try:
            text = httpx.get(f"http://127.0.0.1:{self._port}/metrics", trust_env=False).text
        except httpx.TransportError:
            assert self._process.poll() is None, f"the operator ended:\n{self.last_words()}"
            return 0
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(
            sample.value for sample in samples if sample.name == metric and labels.items() <= sample.labels.items()
        )

    def until_counted(self, metric: str, seconds: float = 120, at_least: float = 1, **labels: str) -> None:
        try:
            eventually(lambda: self.count(metric, **labels) >= at_least, seconds)
        except AssertionError as error:
            raise AssertionError(
                f"{metric} {labels} stays below {at_least}; the operator says:\n{self.last_words()}"
            ) from error

    def log(self) -> str:
        return self._log.read_text("utf-8")

    def last_words(self) -> str:
        return "\n".join(self.log().splitlines()[-10:])


@contextmanager
def operator_process(lab: Lab, space: Namespace, allowed: Iterable[Right], trainer: str) -> Iterator[OperatorProcess]:
    """Serves the namespace with no other rights than these."""
    folder = space.workspace / "operator"
    folder.mkdir()
    config, log, port = folder / "kubeconfig", folder / "log", _free_port()
    config.write_text(_kubeconfig(lab, space.name, allowed))
    flags = f"--image {trainer} --namespace {space.name} --lease-namespace {space.name} --http-port {port} {TIMES}"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "sppo_operator.main", *flags.split()],
            env=os.environ | {"KUBECONFIG": str(config)},
            stderr=sink,
        )
    try:
        yield OperatorProcess(process, port, log)
    finally:
        process.kill()
        process.wait()


def _kubeconfig(lab: Lab, namespace: str, allowed: Iterable[Right]) -> str:
    """The admin's, with the token of a new service account in its place."""
    named = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": NAME, "namespace": namespace}}
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME}
    manifests = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named["metadata"]},
        {**named, "kind": "Role", "rules": [right.rule() for right in allowed]},
        {**named, "kind": "RoleBinding", "roleRef": role, "subjects": [subject]},
    ]
    lab.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))
    config = yaml.safe_load(lab.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": lab.kubectl("create", "token", NAME, "-n", namespace).strip()}
    return yaml.safe_dump(config)


def _free_port() -> int:
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("no port is free")
