"""Names for completion come the way that every other command takes."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sppo_operator.commands.completion import run_names
from sppo_operator.target import ClusterOptions

NAMES = json.dumps({"items": [{"metadata": {"name": "demo"}}]}).encode()


class Proxy(socketserver.ThreadingTCPServer):
    """Tunnels to one API server, which it is itself; `asked` are the requests that came, with their headers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.asked: list[list[str]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Asked(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for answer in (b"", b"Content-Length: %d\r\n" % len(NAMES)):
            lines = []
            while line := self.rfile.readline().strip():
                lines.append(line.decode())
            self.server.asked.append(lines)  # type: ignore[attr-defined] # ours
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + answer + b"\r\n" + (NAMES if answer else b""))


@contextmanager
def proxy() -> Iterator[Proxy]:
    with Proxy() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def options(folder: Path, proxy_url: str, server: str = "http://api.invalid:6443") -> ClusterOptions:
    cluster = {"server": server, "proxy-url": proxy_url}
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c", "namespace": "lab"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "c", "user": {"token": "secret"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return ClusterOptions(kubeconfig=path)


def test_names_come_through_the_proxy_which_gets_no_credentials(tmp_path: Path) -> None:
    with proxy() as server:
        assert run_names(options(tmp_path, f"http://{server.address}")) == ["demo"]
        tunnel, asked = server.asked
    assert tunnel[0].startswith("CONNECT api.invalid:6443 ")
    assert not any("secret" in line for line in tunnel)
    assert asked[0].startswith("GET /apis/sppo.dev/v1alpha1/namespaces/lab/spporuns?limit=500 ")
    assert "Authorization: Bearer secret" in asked


@pytest.mark.parametrize("url", ["socks5://{}", "https://{}", "http://me:pass@{}"])
def test_past_a_proxy_that_is_not_understood_nothing_is_asked(url: str, tmp_path: Path) -> None:
    with proxy() as server:
        assert run_names(options(tmp_path, url.format(server.address), f"http://{server.address}")) == []
        assert server.asked == []
