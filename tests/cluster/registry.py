"""A registry on loopback for one push: it pretends to have some layers, takes the others, and makes an archive of them.

It speaks as much of the OCI distribution protocol as buildah's push does. buildah asks for a layer as it is in its storage,
and compresses it if it has to push it; so layers are kept plain, to be known again in the next push.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit

BLOCK_BYTES = 1 << 20
GZIP = b"\x1f\x8b"
LAYER = "application/vnd.oci.image.layer.v1.tar"


class Registry(ThreadingHTTPServer):
    """Takes one image at `address`; what was pushed lies in `folder`, each blob under its digest."""

    def __init__(self, present: Mapping[str, int], folder: Path) -> None:
        """`present`: the bytes of the layers that need not be pushed, by their digest."""
        super().__init__(("127.0.0.1", 0), _Push)
        self.address = f"127.0.0.1:{self.server_port}"
        self.present = present
        self.folder = folder
        self._kept = {digest: {"digest": digest, "size": size} for digest, size in present.items()}
        self._manifest: dict[str, Any] = {}

    def keep(self, blocks: Iterable[bytes]) -> dict[str, Any]:
        """Write a blob, a compressed one plain; its descriptor."""
        digest, size = hashlib.sha256(), 0
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
            for block in _plain(iter(blocks)):
                digest.update(block)
                size += file.write(block)
        name = f"sha256:{digest.hexdigest()}"
        Path(file.name).rename(self.folder / name)
        return {"digest": name, "size": size}

    def know(self, pushed: str, descriptor: dict[str, Any]) -> None:
        """The blob that was pushed under the digest `pushed` is kept as `descriptor` says."""
        self._kept[pushed] = descriptor

    def keep_manifest(self, manifest: dict[str, Any], media_type: str) -> None:
        manifest["layers"] = [{"mediaType": LAYER} | self._kept[layer["digest"]] for layer in manifest["layers"]]
        self._manifest = {"mediaType": media_type} | self.keep([json.dumps(manifest).encode()])

    def write_archive(self, name: str, to: IO[bytes]) -> None:
        """The image called `name` as an OCI archive without the layers that were present."""
        index = {
            "schemaVersion": 2,
            "manifests": [self._manifest | {"annotations": {"io.containerd.image.name": name}}],
        }
        with tarfile.open(fileobj=to, mode="w|") as tar:
            for path, content in {"oci-layout": {"imageLayoutVersion": "1.0.0"}, "index.json": index}.items():
                text = json.dumps(content).encode()
                member = tarfile.TarInfo(path)
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text))
            for blob in self.folder.iterdir():
                tar.add(blob, "blobs/" + blob.name.replace(":", "/"))


@contextmanager
def serve(present: Mapping[str, int], scratch: Path) -> Iterator[Registry]:
    """A registry that answers within the `with` statement, and leaves nothing in `scratch` after it."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder, Registry(present, Path(folder)) as registry:
        thread = threading.Thread(target=registry.serve_forever)
        thread.start()
        try:
            yield registry
        finally:
            registry.shutdown()
            thread.join()


class _Push(BaseHTTPRequestHandler):
    """A blob is pushed as POST, for a place to send it to; PATCH, its bytes; PUT, its digest. A manifest is one PUT."""

    protocol_version = "HTTP/1.1"
    server: Registry

    def do_GET(self) -> None:  # whether there is a registry at all
        self._answer(HTTPStatus.OK)

    def do_HEAD(self) -> None:
        size = self.server.present.get(self.path.rpartition("/")[2])
        self._answer(HTTPStatus.NOT_FOUND if size is None else HTTPStatus.OK, size=size or 0)

    def do_POST(self) -> None:
        self._answer(HTTPStatus.ACCEPTED, location="/v2/upload")

    def do_PATCH(self) -> None:
        descriptor = self.server.keep(self._body())
        self._answer(HTTPStatus.ACCEPTED, location=f"/v2/upload?kept={descriptor['digest']}&size={descriptor['size']}")

    def do_PUT(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        if "digest" in query:
            self.server.know(query["digest"], {"digest": query["kept"], "size": int(query["size"])})
        else:
            self.server.keep_manifest(json.loads(b"".join(self._body())), self.headers["Content-Type"])
        self._answer(HTTPStatus.CREATED)

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            left = int(self.headers["Content-Length"])
            while block := self.rfile.read(min(left, BLOCK_BYTES)):
                left -= len(block)
                yield block

    def _answer(self, status: HTTPStatus, *, size: int = 0, location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(size))
        if location:
            self.send_header("Location", location)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: buildah says what went wrong."""


def _plain(blocks: Iterator[bytes]) -> Iterator[bytes]:
    first = next(blocks, b"")
    if not first.startswith(GZIP):
        yield from chain([first], blocks)
        return
    inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    for block in chain([first], blocks):
        yield inflate.decompress(block)
    yield inflate.flush()
