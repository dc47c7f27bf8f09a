"""What a cluster test needs of a cluster: the API, watches that wait for a fact, and pods' logs.

Waiting is always a watch with a deadline, never a sleep: `until` returns at the first event that makes its question
true, and says what it saw last when it gives up.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import yaml

Object = dict[str, Any]

GROUPS = {
    "spporuns": "apis/sppo.dev/v1alpha1",
    "jobs": "apis/batch/v1",
    "deployments": "apis/apps/v1",
    "leases": "apis/coordination.k8s.io/v1",
    "workloads": "apis/kueue.x-k8s.io/v1beta1",
    "poddisruptionbudgets": "apis/policy/v1",
    "customresourcedefinitions": "apis/apiextensions.k8s.io/v1",
}
"""Kinds outside the core group."""
BUSY_TRIES = 10


class _Patient(httpx.HTTPTransport):
    """Waits where the API server asks for it, as kubectl does: a restarted one is ready before all its storage is."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for tries_left in reversed(range(BUSY_TRIES)):
            response = super().handle_request(request)
            if response.status_code != 429 or not tries_left:
                break
            response.close()
            time.sleep(float(response.headers.get("Retry-After", "1")))
        return response


class Lab:
    """A client of one cluster, in the vocabulary of its resources' plural names."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = b64decode(cluster["certificate-authority-data"]).decode()
        self.http = httpx.Client(
            base_url=cluster["server"],
            transport=_Patient(verify=ssl.create_default_context(cadata=authority), trust_env=False),
            headers={"Authorization": f"Bearer {user['token']}"},
            timeout=30,
            trust_env=False,
        )

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Standard output of kubectl: the node's own, or the one on the path for another cluster."""
        own = self.kubeconfig.parent / "bin" / "kubectl"
        command = [str(own) if own.exists() else "kubectl", "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        response = self.http.get(f"{_path(plural, namespace)}/{name}")
        return None if response.status_code == 404 else _data(response)

    def list(self, plural: str, namespace: str = "", selector: str = "") -> list[Object]:
        return _data(self.http.get(_path(plural, namespace), params={"labelSelector": selector}))["items"]

    def create(self, plural: str, namespace: str, body: Mapping[str, Any]) -> Object:
        return _data(self.http.post(_path(plural, namespace), json=body, params={"fieldValidation": "Strict"}))

    def patch(self, plural: str, namespace: str, name: str, patch: Mapping[str, Any], part: str = "") -> Object:
        kind = {"Content-Type": "application/merge-patch+json"}
        path = f"{_path(plural, namespace)}/{name}{part}"
        return _data(self.http.patch(path, content=json.dumps(patch), headers=kind))

    def delete(self, plural: str, namespace: str, name: str, propagation: str = "Background") -> None:
        body = {"propagationPolicy": propagation}
        response = self.http.request("DELETE", f"{_path(plural, namespace)}/{name}", json=body)
        if response.status_code != 404:
            _data(response)

    def log(self, namespace: str, pod: str) -> str:
        return self.http.get(f"{_path('pods', namespace)}/{pod}/log").text

    def until(
        self,
        plural: str,
        namespace: str,
        question: Callable[[dict[str, Object]], Any],
        *,
        seconds: float = 60,
        selector: str = "",
    ) -> Any:
        """The first true answer to `question` about all objects of a kind, by name; asks at every change.

        Raises AssertionError after `seconds`, with what was seen last.
        """
        deadline = time.monotonic() + seconds
        seen: dict[str, Object] = {}
        while time.monotonic() < deadline:
            try:
                with closing(self._states(plural, namespace, selector, deadline)) as states:
                    for seen in states:
                        if answer := question(seen):
                            return answer
            except httpx.HTTPError:  # the API server is restarted by some tests
                time.sleep(0.2)
        shown = json.dumps([_shown(item) for item in seen.values()], indent=1)
        raise AssertionError(f"not within {seconds:.0f} s; the last {plural} of {namespace}:\n{shown}")

    def _states(self, plural: str, namespace: str, selector: str, deadline: float) -> Generator[dict[str, Object]]:
        path, query = _path(plural, namespace), {"labelSelector": selector}
        listed = _data(self.http.get(path, params=query))
        objects = {item["metadata"]["name"]: item for item in listed["items"]}
        yield objects
        left = max(1, int(deadline - time.monotonic()))
        query |= {"watch": "1", "resourceVersion": listed["metadata"]["resourceVersion"], "timeoutSeconds": str(left)}
        with self.http.stream("GET", path, params=query, timeout=left + 5) as stream:
            for line in stream.iter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                name = event["object"]["metadata"]["name"]
                if event["type"] == "DELETED":
                    objects.pop(name, None)
                else:
                    objects[name] = event["object"]
                yield objects

    # Runs

    def run(self, namespace: str, name: str) -> Object:
        found = self.get("spporuns", namespace, name)
        assert found is not None
        return found

    def until_run(self, namespace: str, name: str, question: Callable[[Object], Any], *, seconds: float = 60) -> Object:
        """The run as it is when `question` about it turns true."""
        return self.until(
            "spporuns",
            namespace,
            lambda runs: runs[name] if name in runs and question(runs[name]) else None,
            seconds=seconds,
        )

    def until_over(self, namespace: str, name: str, *, seconds: float = 60) -> Object:
        """The run when its condition Succeeded is no longer Unknown."""
        return self.until_run(
            namespace, name, lambda run: condition(run, "Succeeded")["status"] in ("True", "False"), seconds=seconds
        )


def condition(resource: Mapping[str, Any], kind: str) -> dict[str, str]:
    found = [item for item in resource.get("status", {}).get("conditions", ()) if item["type"] == kind]
    return found[0] if found else {"status": "", "reason": "", "message": ""}


def stage(run: Mapping[str, Any], iteration: int, name: str) -> Object:
    """A stage as the status shows it, empty before it is there."""
    for shown in run.get("status", {}).get("iterations", ()):
        for found in shown.get("stages", ()):
            if (shown["number"], found["stage"]) == (iteration, name):
                return found
    return {}


def digests(run: Mapping[str, Any]) -> dict[str, str]:
    """The content digest of every stage that the status shows."""
    return {
        f"{found['stage']} {shown['number']}": found.get("contentDigest", "")
        for shown in run["status"]["iterations"]
        for found in shown.get("stages", ())
    }


def _path(plural: str, namespace: str) -> str:
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"/{GROUPS.get(plural, 'api/v1')}{scope}/{plural}"


def _data(response: httpx.Response) -> Any:
    assert response.is_success, f"{response.request.method} {response.request.url}: {response.text}"
    return response.json()


def _shown(item: Object) -> Object:
    return {"name": item["metadata"]["name"], "status": item.get("status")}
