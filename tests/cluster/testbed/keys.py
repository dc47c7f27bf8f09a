"""Certificates and tokens, made new for every boot and valid nowhere else."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path

from testbed.box import NODE_ADDRESS
from testbed.shell import run

API_SERVICE_ADDRESS = "198.19.0.1"
_SERVER_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "365")


def make_certificates(folder: Path) -> None:
    """ca, api (the API server's) and sa.key, which signs the tokens of service accounts."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca = (folder / "ca.crt", folder / "ca.key")
    run("openssl", "req", "-x509", *_NEW_KEY, "-subj", "/CN=sppo-cluster", "-out", ca[0], "-keyout", ca[1])
    addresses = [f"IP:{address}" for address in (NODE_ADDRESS, API_SERVICE_ADDRESS, "127.0.0.1")]
    names = "subjectAltName=" + ",".join(addresses + [f"DNS:{name}" for name in _SERVER_NAMES])
    run("openssl", "req", "-x509", *_NEW_KEY, "-subj", "/CN=kube-apiserver", "-addext", names,
        "-CA", ca[0], "-CAkey", ca[1], "-out", folder / "api.crt", "-keyout", folder / "api.key")  # fmt: skip
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / "sa.key")


class Users:
    """Users of the API server that prove themselves by a token: fewer files than a certificate for each."""

    def __init__(self, folder: Path) -> None:
        self.tokens_file = folder / "tokens.csv"
        self._ca = folder / "ca.crt"
        self._lines: list[str] = []

    def add(self, kubeconfig: Path, user: str, group: str = "") -> None:
        """Writes a kubeconfig that needs no other file."""
        token = secrets.token_hex(16)
        self._lines.append(f"{token},{user},{len(self._lines)},{group}")
        self.tokens_file.write_text("\n".join(self._lines) + "\n")
        authority = base64.b64encode(self._ca.read_bytes()).decode()
        cluster = {"server": f"https://{NODE_ADDRESS}:6443", "certificate-authority-data": authority}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "sppo-cluster",
            "clusters": [{"name": "sppo-cluster", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "sppo-cluster", "context": {"cluster": "sppo-cluster", "user": user}}],
        }
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(json.dumps(config, indent=2) + "\n")
