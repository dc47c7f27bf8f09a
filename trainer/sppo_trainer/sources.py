"""Where models and prompts come from: the hub, a remote filesystem, a folder of this machine or of the workspace."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sppo_trainer.errors import ConfigError, MissingError
from sppo_trainer.prompts import SUFFIXES

HUB = "hf://"
# What a model folder needs, and nothing that would be executed: no pickled weights, no code.
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken")


def fetch_model(source: str, revision: str | None, *, field: str, workspace: Path, to: Path) -> str | None:
    """Copy the model folder `source` to `to`; returns the commit it resolved to, None for a plain folder.

    Raises MissingError naming `field` if it does not exist.
    """
    if source.startswith(HUB):
        return _from_hub(source, revision, field, to)
    folder = to.parent / f"{to.name}.remote" if "://" in source else local_path(source, field, workspace)
    if "://" in source:
        _from_remote(source, field, folder)
    if not folder.is_dir():
        raise MissingError(f"{field} {source} is no folder: give the folder that holds config.json")
    to.mkdir(parents=True)
    for pattern in MODEL_FILES:
        for file in sorted(folder.glob(pattern)):
            shutil.copyfile(file, to / file.name)
    if "://" in source:
        shutil.rmtree(folder)
    return None


def fetch_prompts(
    source: str, revision: str | None, *, field: str, workspace: Path, scratch: Path
) -> tuple[Path, str | None]:
    """(file or folder with the prompts, resolved commit); remote ones are brought to `scratch`."""
    if source.startswith(f"{HUB}datasets/"):
        commit = _from_hub(source, revision, field, scratch)
        return scratch, commit
    if "://" in source:
        target = scratch / source.rstrip("/").rsplit("/", 1)[-1]
        _from_remote(source, field, target)
        return target, None
    return local_path(source, field, workspace), None


def local_path(source: str, field: str, workspace: Path) -> Path:
    """An absolute path, or one relative to the workspace; raises MissingError if nothing is there."""
    path = Path(source)
    if not path.is_absolute():
        if ".." in path.parts:
            raise ConfigError(f"{field} {source} leaves the workspace: use a path without '..', or an absolute one")
        path = workspace / path
    try:
        for found in (path, *path.iterdir()) if path.is_dir() else (path,):
            found.open("rb").close() if found.is_file() else found.stat()
    except FileNotFoundError as error:
        raise MissingError(f"{field} {source} does not exist at {path}: put it there, or correct the path") from error
    except PermissionError as error:
        raise MissingError(
            f"{field} {source}: {error.filename} may not be read by user {os.getuid()}: give everybody the right to"
        ) from error
    return path


def _from_hub(source: str, revision: str | None, field: str, to: Path) -> str:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    name = source.removeprefix(HUB)
    kind, patterns = "model", list(MODEL_FILES)
    if name.startswith("datasets/"):
        name, kind, patterns = name.removeprefix("datasets/"), "dataset", [f"*{suffix}" for suffix in SUFFIXES]
    try:
        commit = HfApi().repo_info(name, revision=revision, repo_type=kind).sha
        snapshot_download(name, revision=commit, repo_type=kind, local_dir=to, allow_patterns=patterns)
    except HFValidationError as error:
        raise ConfigError(f"{field} {source} is no name of the hub ({error}): write hf://owner/name") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status is not None and status < 500 and status != 429:
            raise MissingError(
                f"{field} {source} at revision {revision or 'main'} cannot be read from the hub (HTTP {status}): "
                "check name and revision, and for a gated model set model.tokenSecret"
            ) from error
        raise
    shutil.rmtree(to / ".cache", ignore_errors=True)  # the downloader's own bookkeeping
    assert commit is not None
    return commit


def _from_remote(source: str, field: str, to: Path) -> None:
    import fsspec

    scheme = source.split("://", 1)[0]
    try:
        filesystem, path = fsspec.core.url_to_fs(source)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{field} {source}: {scheme}:// is not available here ({error})") from error
    try:
        if not filesystem.exists(path):
            raise MissingError(f"{field} {source} does not exist: check bucket and path")
        to.parent.mkdir(parents=True, exist_ok=True)
        filesystem.get(path, str(to), recursive=filesystem.isdir(path))
    except PermissionError as error:
        raise MissingError(f"{field} {source} may not be read ({error}): check the credentials") from error
