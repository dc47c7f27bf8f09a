"""Artifacts appear whole or not at all: "done" is a manifest, and readers follow manifests only.

    <workspace>/<namespace>/<name>/
      run.json                      digest of the run's immutable fields
      prepare/  i0/evaluate/  i1/generate/  i1/score/  i1/train/  i1/evaluate/ …      one artifact each
        manifest.json               commits the artifact; never changes afterwards
        a-<attempt>/…               payload files under the unique folder of the attempt that wrote them
        a-<attempt>/provenance.json times, host and versions: beside the content, not part of it
        chunks/00003/manifest.json  a part that outlives a kill: an artifact in the artifact

An attempt writes and syncs its payload, then links the manifest to its name, which fails if one is there already: the
first writer wins, and a torn file or a zombie on a lost node is a folder that no manifest names.
`contentDigest` covers stage, iteration, configuration, inputs, payload and parts; not times, hosts or attempts.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from sppo_trainer.errors import DataError, MissingError

SCHEMA_VERSION = 1
_ATTEMPT_PREFIX = "a-"
# A filesystem without hard links (some network mounts) cannot link-if-absent; there the manifest is renamed into place.
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True, kw_only=True)
class File:
    """One payload file: its name for readers, where it lies under the artifact, and what it must contain."""

    name: str
    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    stage: str
    iteration: int
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    """Content digests of the artifacts that this one was made from."""
    rows: int
    result: Mapping[str, Any]
    """The stage's metrics, as written to the termination log."""
    files: tuple[File, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    """Content digests of the chunks."""

    @functools.cached_property
    def content_digest(self) -> str:
        content = {
            "schemaVersion": SCHEMA_VERSION,
            "stage": self.stage,
            "iteration": self.iteration,
            "config": self.config,
            "inputs": self.inputs,
            "rows": self.rows,
            "files": [[file.name, file.bytes, file.sha256] for file in self.files],
            "parts": self.parts,
        }
        return hashlib.sha256(canonical_json(content)).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {
            "schemaVersion": SCHEMA_VERSION,
            "stage": self.stage,
            "iteration": self.iteration,
            "contentDigest": self.content_digest,
            "config": self.config,
            "inputs": self.inputs,
            "rows": self.rows,
            "files": [vars(file) for file in self.files],
            "parts": self.parts,
            "result": self.result,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: Path) -> Manifest:
        """Raises DataError if the manifest is of another schema or does not match its own digest."""
        try:
            if data["schemaVersion"] != SCHEMA_VERSION:
                raise DataError(
                    f"{where} has schemaVersion {data['schemaVersion']!r}: this trainer reads {SCHEMA_VERSION}; "
                    "use the image that wrote it"
                )
            manifest = cls(
                stage=data["stage"],
                iteration=data["iteration"],
                config=data["config"],
                inputs=data["inputs"],
                rows=data["rows"],
                files=tuple(File(**file) for file in data["files"]),
                parts=data["parts"],
                result=data["result"],
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"{where} is no manifest ({error!r}): {_again(where.parent)}") from error
        if manifest.content_digest != data.get("contentDigest"):
            raise DataError(
                f"{where} has contentDigest {data.get('contentDigest')} but its content gives "
                f"{manifest.content_digest}: it was changed; {_again(where.parent)}"
            )
        return manifest


class Artifact:
    """A folder that is finished once it holds a manifest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self._manifest: Manifest | None = None
        self._verified: set[str] = set()

    def manifest(self) -> Manifest | None:
        """The committed manifest, or None while there is none."""
        if self._manifest is None:
            path = self.folder / "manifest.json"
            try:
                data = json.loads(path.read_text("utf-8"))
            except FileNotFoundError:
                return None
            except ValueError as error:
                raise DataError(f"{path} is not JSON: {_again(self.folder)}") from error
            self._manifest = Manifest.from_json(data, path)
        return self._manifest

    def require(self) -> Manifest:
        """The manifest of an input; raises MissingError if the stage before has not finished."""
        manifest = self.manifest()
        if manifest is None:
            raise MissingError(f"{self.folder} has no manifest.json: run the stage that makes it first")
        return manifest

    def path(self, name: str) -> Path:
        """Path of a payload file, after comparing its size and checksum with the manifest's (once)."""
        file = next((file for file in self.require().files if file.name == name), None)
        if file is None:
            raise MissingError(f"{self.folder}/manifest.json lists no file {name}: {_again(self.folder)}")
        path = self.folder / file.path
        if name not in self._verified:
            if not path.is_file() or path.stat().st_size != file.bytes or sha256_of(path) != file.sha256:
                raise DataError(
                    f"{path} does not match the checksum {file.sha256[:12]}… in its manifest: {_again(self.folder)}"
                )
            self._verified.add(name)
        return path

    def directory(self, name: str) -> Path:
        """Path of a payload folder, such as a model, with every file in it compared with the manifest."""
        paths = [self.path(file.name) for file in self.require().files if file.name.startswith(f"{name}/")]
        if not paths:
            raise MissingError(f"{self.folder}/manifest.json lists no folder {name}: {_again(self.folder)}")
        # The files of one artifact share the folder of the attempt that wrote them.
        return self.folder / paths[0].relative_to(self.folder).parts[0] / name

    def chunk(self, index: int) -> Artifact:
        return Artifact(self.folder / "chunks" / f"{index:05d}")

    def chunks(self) -> Iterator[Artifact]:
        """The finished chunks in order; raises DataError if one is not the chunk that the manifest names."""
        for name, digest in self.require().parts.items():
            chunk = self.chunk(int(name))
            if chunk.require().content_digest != digest:
                raise DataError(f"{chunk.folder} is not the chunk that {self.folder} names: {_again(self.folder)}")
            yield chunk

    def made_from(self, config: Mapping[str, Any], inputs: Mapping[str, str]) -> bool:
        """Whether this piece is finished; raises DataError if it was made from other settings or inputs."""
        manifest = self.manifest()
        if manifest is None:
            return False
        if canonical_json([manifest.config, manifest.inputs]) != canonical_json([config, inputs]):
            raise DataError(f"{self.folder} was made from other inputs than it would be now: {_again(self.folder)}")
        return True

    def sub(self, name: str) -> Artifact:
        """An artifact that belongs to this one and is finished before it."""
        return Artifact(self.folder / name)

    def draft(self) -> Draft:
        return Draft(self)


class Draft:
    """The payload of one attempt, invisible to readers until `commit`; an error inside `with` removes it."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.attempt = _ATTEMPT_PREFIX + uuid.uuid4().hex[:12]
        self.folder = artifact.folder / self.attempt

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Once there is a manifest it may name this very folder: an error after the commit must not take the payload.
        if kind is not None and not (self.artifact.folder / "manifest.json").exists():
            shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name: str) -> Path:
        """Where to write the payload file `name`."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def commit(self, manifest: Manifest, provenance: Mapping[str, Any]) -> Manifest:
        """Publish the payload under `manifest` (its `files` are filled in here).

        Returns the manifest that readers will see: another attempt's, if that one was first.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        files = []
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            name = path.relative_to(self.folder).as_posix()
            path.chmod(0o644)  # safetensors writes 0600, and another stage may run as another user
            digest = sha256_of(path)
            sync(path)
            files.append(File(name=name, path=f"{self.attempt}/{name}", bytes=path.stat().st_size, sha256=digest))
        write_synced(self.folder / "provenance.json", json.dumps(provenance, indent=1))
        for folder in {path.parent for path in self.folder.rglob("*")} | {self.artifact.folder}:
            sync(folder)
        whole = dataclasses.replace(manifest, files=tuple(files))
        if publish(self.artifact.folder / "manifest.json", json.dumps(whole.to_json(), indent=1)):
            _remove_other_attempts(self)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        return self.artifact.require()


class Workspace:
    """The folder of one run in the workspace."""

    def __init__(self, root: Path, *, namespace: str, name: str) -> None:
        self.root = root
        self.folder = root / namespace / name

    def stage(self, iteration: int, stage: str) -> Artifact:
        return Artifact(self.folder / (stage if stage == "prepare" else f"i{iteration}/{stage}"))

    def policy(self, iteration: int) -> Artifact:
        """The artifact with the folder `model` of pi_iteration; pi_0 is the base."""
        return self.stage(0, "prepare") if iteration == 0 else self.stage(iteration, "train")

    def adopt(self, digest: str) -> None:
        """Claim the folder for the run with this digest; raises DataError if another run owns it."""
        path = self.folder / "run.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        publish(path, json.dumps({"digest": digest}))
        try:
            owner = json.loads(path.read_text("utf-8"))["digest"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged: restore it, or use another workspace or run name") from error
        if owner != digest:
            raise DataError(
                f"{self.folder} belongs to a run with other immutable fields (digest {owner[:12]}…, this run "
                f"{digest[:12]}…): use another run name or workspace, or remove the folder"
            )


def canonical_json(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def publish(path: Path, text: str) -> bool:
    """Create `path` with `text`, whole or not at all; False if it exists already, which then stays as it is."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    write_synced(beside, text)
    try:
        os.link(beside, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if path.exists():
            return False
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)
    return True


def write_synced(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_other_attempts(winner: Draft) -> None:
    """Free what killed attempts left; the manifest names none of it, so no reader misses it."""
    for folder in winner.artifact.folder.glob(f"{_ATTEMPT_PREFIX}*"):
        if folder.name != winner.attempt:
            shutil.rmtree(folder, ignore_errors=True)


def _again(folder: Path) -> str:
    """The remedy for a damaged artifact: its whole stage is made again, for a missing chunk alone would be an error."""
    parts = folder.parts
    start = next((index for index, part in enumerate(parts) if re.fullmatch(r"prepare|i\d+", part)), len(parts) - 1)
    whole = Path(*parts[: start + (1 if parts[start] == "prepare" else 2)])
    return f"remove {whole}, and start the run again"
