"""A real Prometheus on this machine, which scrapes the operator's pods as the chart's PodMonitor has it done.

Debian's is built without discovery by Kubernetes. So the targets that it would find are written into a file.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from lab import Lab
from operators import NAME, NAMESPACE
from standin_notes import eventually

SCRAPE_SECONDS = 2.0
META = "__meta_kubernetes_pod"
RULES = Path(__file__).parents[2] / "charts/sppo-operator/files/alerts.yaml"


class Prometheus:
    """Ended by `stop`; everything it writes is in `folder`."""

    def __init__(
        self,
        folder: Path,
        lab: Lab,
        *,
        waits: Mapping[str, str] | None = None,
        scrape_seconds: float = SCRAPE_SECONDS,
    ) -> None:
        """`waits` replaces the `for` of alerts by name."""
        self._folder = folder
        program = shutil.which("prometheus")
        if not program:
            pytest.skip("Prometheus is not installed: apt-get install prometheus")
        (folder / "alerts.yaml").write_text(yaml.safe_dump(_rules(waits or {})))
        (folder / "targets.json").write_text(json.dumps(_targets(lab)))
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(_config(folder, f"{scrape_seconds:.0f}s")))
        port = _free_port()
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )
        eventually(self._is_ready, 60)

    @property
    def url(self) -> str:
        return str(self._http.base_url)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._http.close()

    def now(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        found: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return found

    def over(self, expression: str, *, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of a range query."""
        found: list[dict[str, Any]] = self._get("query_range", query=expression, start=start, end=end, step=step)[
            "result"
        ]
        return found

    def firing(self) -> list[dict[str, Any]]:
        return [alert for alert in self._get("alerts")["alerts"] if alert["state"] == "firing"]

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"Prometheus does not start:\n{(self._folder / 'log').read_text()}")
        try:
            return self._http.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def _get(self, what: str, **query: Any) -> Any:
        response = self._http.get(f"/api/v1/{what}", params=query)
        assert response.is_success, f"{query}: {response.text}"
        return response.json()["data"]


def _targets(lab: Lab) -> list[dict[str, Any]]:
    """Every port of every container in the operator's namespace, with the labels that discovery would give it."""
    return [
        {
            "targets": [f"{pod['status']['podIP']}:{port['containerPort']}"],
            "labels": {
                "__meta_kubernetes_namespace": pod["metadata"]["namespace"],
                f"{META}_name": pod["metadata"]["name"],
                f"{META}_label_app_kubernetes_io_name": pod["metadata"]["labels"]["app.kubernetes.io/name"],
                f"{META}_container_name": container["name"],
                f"{META}_container_port_name": port.get("name", ""),
            },
        }
        for pod in lab.list("pods", NAMESPACE)
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
    ]


def _config(folder: Path, every: str) -> dict[str, Any]:
    scrape = {
        "job_name": NAME,
        "honor_labels": True,
        "file_sd_configs": [{"files": [str(folder / "targets.json")]}],
        "relabel_configs": [
            {"action": "keep", "source_labels": [f"{META}_label_app_kubernetes_io_name"], "regex": NAME},
            {"action": "keep", "source_labels": [f"{META}_container_port_name"], "regex": "http"},
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": [f"{META}_name"], "target_label": "pod"},
            {"source_labels": [f"{META}_container_name"], "target_label": "container"},
        ],
    }
    return {
        "global": {"scrape_interval": every, "evaluation_interval": every},
        "rule_files": [str(folder / "alerts.yaml")],
        "scrape_configs": [scrape],
    }


def _rules(waits: Mapping[str, str]) -> dict[str, Any]:
    rules: dict[str, Any] = yaml.safe_load(RULES.read_text("utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["for"] = waits.get(rule["alert"], rule["for"])
    return rules


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
