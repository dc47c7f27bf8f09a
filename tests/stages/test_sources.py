"""Models and prompts from the hub and from S3, each with a real client against a stand-in on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import fsspec
import pipeline
import pytest
import tiny

COMMIT = "c" * 40
REPOSITORIES = {"models/team/tiny": "models/tiny", "datasets/team/prompts": "data"}


class Hub(BaseHTTPRequestHandler):
    """The calls of the Hugging Face hub that a download makes: a revision, its files, and one of them."""

    root: Path
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *arguments: Any) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        path = unquote(self.path.split("?")[0]).strip("/")
        content, headers = self._api(path) if path.startswith("api/") else self._file(path)
        self.send_response(404 if content is None else 200)
        content = b"{}" if content is None else content
        for name, value in (headers | {"Content-Length": str(len(content)), "X-Repo-Commit": COMMIT}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _api(self, path: str) -> tuple[bytes | None, dict[str, str]]:
        call = re.fullmatch(r"api/(?P<name>\w+/\w+/\w+)(/(?P<what>revision|tree)/(?P<revision>\w+))?", path)
        if call is None or call["name"] not in REPOSITORIES:
            return None, {"X-Error-Code": "RepoNotFound"}
        if call["revision"] not in (None, "v1", COMMIT):
            return None, {"X-Error-Code": "RevisionNotFound"}
        files = sorted((self.root / REPOSITORIES[call["name"]]).iterdir())
        tree = [{"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40} for file in files]
        info = {"id": call["name"].split("/", 1)[1], "sha": COMMIT, "siblings": [], "tags": [], "private": False}
        data = tree if call["what"] == "tree" else info
        return json.dumps(data).encode(), {"Content-Type": "application/json"}

    def _file(self, path: str) -> tuple[bytes | None, dict[str, str]]:
        name, _, rest = path.partition(f"/resolve/{COMMIT}/")
        folder = REPOSITORIES.get(name if name.startswith("datasets/") else f"models/{name}")
        file = self.root / str(folder) / rest
        if folder is None or not rest or not file.is_file():
            return None, {"X-Error-Code": "EntryNotFound"}
        content = file.read_bytes()
        return content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    root = pipeline.make_workspace(tmp_path / "hub")
    (root / "models/tiny/pytorch_model.bin").write_bytes(b"pickled")
    (root / "models/tiny/modeling.py").write_text("raise SystemExit")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("TinyHub", (Hub,), {"root": root}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def prepare(root: Path, spec: dict[str, Any], **variables: str) -> pipeline.Outcome:
    root.mkdir(exist_ok=True)
    return pipeline.run("prepare", pipeline.config("prepare", 0, root, spec), root, **variables)


def sourced(model: str, prompts: str, revision: str | None = None) -> dict[str, Any]:
    spec = pipeline.changed(pipeline.SPEC, "model.source", model)
    spec = pipeline.changed(spec, "prompts.source", prompts)
    return spec if revision is None else pipeline.changed(spec, "model.revision", revision)


def test_the_hub_is_resolved_to_commits(hub: str, tmp_path: Path) -> None:
    root = tmp_path / "run"
    variables = {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    spec = sourced("hf://team/tiny", "hf://datasets/team/prompts", "v1")
    outcome = prepare(root, spec, **variables)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.result is not None
    assert outcome.result["metrics"]["modelRevision"] == outcome.result["metrics"]["promptsRevision"] == COMMIT
    files = {path.name for path in next((root / "default/tiny/prepare").glob("a-*/model")).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    assert not files & {"pytorch_model.bin", "modeling.py", ".cache"}, "nothing that could be executed is fetched"

    for model, revision in (("hf://team/other", None), ("hf://team/tiny", "v9")):
        missing = sourced(model, "hf://datasets/team/prompts", revision)
        refused = prepare(tmp_path / "refused", missing, **variables)
        assert refused.exit_code == 66
        assert f"model.source {model} at revision {revision or 'main'} cannot be read" in refused.error


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a client of an S3-compatible server, in a process of its own: Flask would stay in this one."""
    pytest.importorskip("moto", reason="the S3 stand-in is the package moto[server]")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for_port(port, server)
    yield {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    server.terminate()
    server.wait(timeout=60)


def test_a_bucket(s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    local = tmp_path / "local"
    tiny.save_model(local / "tiny")
    tiny.write_prompts(local / "prompts.jsonl", 24)
    filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
    filesystem.mkdir("bucket")
    filesystem.put(f"{local}/", "bucket/", recursive=True)

    outcome = prepare(tmp_path / "run", sourced("s3://bucket/tiny", "s3://bucket/prompts.jsonl"))
    assert outcome.exit_code == 0, outcome.output
    assert list(pipeline.digests(tmp_path / "run")) == ["prepare"]

    refused = prepare(tmp_path / "refused", sourced("s3://bucket/none", "s3://bucket/prompts.jsonl"))
    assert refused.exit_code == 66
    assert refused.error == "model.source s3://bucket/none does not exist: check bucket and path"


def wait_for_port(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, "the S3 stand-in ended at once"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)  # polling a condition, bounded by the deadline
    pytest.fail("the S3 stand-in did not start")
