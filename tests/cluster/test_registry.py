"""The registry, with a push as buildah does it: asks for plain layers, sends compressed ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import pytest
import registry

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
BASE, SOURCE, CONFIG = b"a large layer" * 100_000, b"a small layer", b'{"architecture": "amd64"}'


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Push:
    """One client; `sent` holds what it had to send."""

    def __init__(self, address: str) -> None:
        self.connection = HTTPConnection(address)
        self.sent: list[bytes] = []

    def image(self, layers: list[bytes]) -> None:
        described = [{"digest": self.blob(layer, gzip.compress(layer, 0))} for layer in layers]
        config = {"digest": self.blob(CONFIG, CONFIG)}
        self.ask("PUT", "/v2/it/manifests/tag", 201, json.dumps({"config": config, "layers": described}).encode())

    def blob(self, plain: bytes, sent: bytes) -> str:
        if self.ask("HEAD", f"/v2/it/blobs/{digest(plain)}", None) == "200":
            return digest(plain)
        self.sent.append(plain)
        place = self.ask("POST", "/v2/it/blobs/uploads/", 202)
        place = self.ask("PATCH", place, 202, iter([sent[:7], sent[7:]]))
        self.ask("PUT", f"{place}&digest={quote(digest(sent), safe='')}", 201)
        return digest(sent)

    def ask(self, method: str, path: str, status: int | None, body: bytes | Iterator[bytes] = b"") -> str:
        """The location that is answered, or the status if any will do."""
        self.connection.request(
            method, path, body, {"Content-Type": MANIFEST}, encode_chunked=not isinstance(body, bytes)
        )
        answer = self.connection.getresponse()
        answer.read()
        if status is None:
            return str(answer.status)
        assert answer.status == status
        return answer.headers.get("Location", "")


def pushed(layers: list[bytes], present: Mapping[str, int], scratch: Path) -> tuple[list[bytes], dict[str, bytes]]:
    """What had to be sent, and the files of the archive."""
    archive = io.BytesIO()
    with registry.serve(present, scratch) as server:
        push = Push(server.address)
        push.image(layers)
        push.connection.close()
        server.write_archive("localhost/it:tag", archive)
    archive.seek(0)
    with tarfile.open(fileobj=archive) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return push.sent, {name: file.read() for name, file in files.items() if file}


@pytest.mark.parametrize(
    ("present", "missing"),
    [([], [BASE, SOURCE]), ([BASE], [SOURCE]), ([BASE, SOURCE], [])],
    ids=["everything is new", "our own source is new", "nothing is new"],
)
def test_only_missing_layers_are_sent_and_archived(tmp_path: Path, present: list[bytes], missing: list[bytes]) -> None:
    known = {digest(layer): len(layer) for layer in present}
    sent, files = pushed([BASE, SOURCE], known, tmp_path)
    assert sent == [*missing, CONFIG]

    (described,) = json.loads(files["index.json"])["manifests"]
    assert described["annotations"] == {"io.containerd.image.name": "localhost/it:tag"}
    text = files[path(described["digest"])]
    assert (described["size"], described["mediaType"]) == (len(text), MANIFEST)
    manifest = json.loads(text)
    assert [(layer["digest"], layer["size"]) for layer in manifest["layers"]] == [
        (digest(layer), len(layer)) for layer in (BASE, SOURCE)
    ]
    assert manifest["config"] == {"digest": digest(CONFIG)}
    blobs = {name: content for name, content in files.items() if name.startswith("blobs/")}
    assert blobs == {path(digest(content)): content for content in [*missing, CONFIG, text]}
    assert list(tmp_path.iterdir()) == []


def path(name: str) -> str:
    return "blobs/" + name.replace(":", "/")
