"""Container images without a container builder: one layer, written with tarfile."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def scratch_image(
    name: str, files: Mapping[str, Path], archive: Path, entrypoint: Sequence[str], *, user: str = "65532:65532"
) -> Path:
    """Writes `FROM scratch` plus `files` (path in the image: file here) as an archive that `Node.import_image` takes.

    `user` is numeric and not root: where a pod says runAsNonRoot, the kubelet refuses an image that names neither.
    """
    layer = _tar({path.lstrip("/"): source.read_bytes() for path, source in files.items()})
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "User": user, "Env": ["PATH=/"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    archive.write_bytes(_tar({"manifest.json": manifest, "config.json": config, "layer.tar": layer}))
    return archive


def _tar(files: Mapping[str, bytes]) -> bytes:
    """Times and owners are constant, so equal files make an equal image."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
