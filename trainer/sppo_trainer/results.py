"""What a run made so far, as one JSON document on standard output: `python -m sppo_trainer.results FOLDER --digest D`.

For `sppo report` of a run on a cluster, in a pod of the user's that can only read. The document is one line, and small
enough for a container's log, of which the kubelet keeps the newest 10 MiB:

    {"results": 1,
     "made": {"i1/train": {"result", "contentDigest", "provenance"}, ...},
     "curves": {"1": {...}}, "every": {"1": 3}, "samples": {"2": [...]}, "damaged": ["one sentence", ...]}

`every` says which training's curves hold only every so many steps. Follows manifests and compares checksums.
Exit codes: 0 done, 65 and 66 as in errors.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from sppo_trainer.artifacts import Artifact
from sppo_trainer.errors import DataError, MissingError, UserError

DOCUMENT = 1
CURVE_POINTS = 500
"""Of each curve of one training: a hundred iterations are then 3 MB."""
TEXT_CHARACTERS = 4096
"""As much as a report shows of one."""
STAGES = ("generate", "score", "train", "evaluate")

Object = dict[str, Any]


def main() -> NoReturn:
    parser = argparse.ArgumentParser(description="What a run made so far, as one JSON document.")
    parser.add_argument("folder", type=Path, help="of the run in the workspace")
    parser.add_argument("--digest", required=True, help="of the run's immutable fields")
    parser.add_argument("--samples", type=int, help="the iteration whose answers are wanted")
    options = parser.parse_args()
    try:
        # ASCII: a log passes through many hands, and a lone surrogate of a model's must not end it.
        print(json.dumps(results(options.folder, options.digest, options.samples)), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    sys.exit(0)


def results(folder: Path, digest: str, samples_of: int | None) -> Object:
    """The document; raises MissingError or DataError if the folder is not that run's."""
    _check_owner(folder, digest)
    document: Object = {"results": DOCUMENT, "made": {}, "curves": {}, "every": {}, "samples": {}, "damaged": []}
    for name, artifact in _artifacts(folder):
        number = str(_iteration_of(name))
        _collect(document, "made", name, _made, artifact)
        if name.endswith("/train"):
            _collect(document, "curves", number, _curves, artifact)
        if name == f"i{samples_of}/evaluate":
            _collect(document, "samples", number, _samples, artifact)
    for number, curves in document["curves"].items():
        every = -(-max(map(len, curves.values()), default=0) // CURVE_POINTS)
        if every > 1:
            document["every"][number] = every
            document["curves"][number] = {key: values[::every] for key, values in curves.items()}
    return document


def _check_owner(folder: Path, digest: str) -> None:
    path = folder / "run.json"
    try:
        owner = json.loads(path.read_text("utf-8"))["digest"]
    except FileNotFoundError as error:
        raise MissingError(f"{path} is not there: no stage of the run has begun, or its folder was removed") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: restore it") from error
    if owner != digest:
        raise DataError(
            f"{folder} belongs to a run with other immutable fields (digest {owner[:12]}…, this run {digest[:12]}…)"
        )


def _artifacts(folder: Path) -> Iterator[tuple[str, Artifact]]:
    """The finished stages, in the order of their iterations."""
    iterations = sorted(int(path.name[1:]) for path in folder.glob("i*") if path.name[1:].isdigit())
    names = ["prepare", *(f"i{number}/{stage}" for number in iterations for stage in STAGES)]
    for name in names:
        if (folder / name / "manifest.json").exists():
            yield name, Artifact(folder / name)


def _iteration_of(name: str) -> int:
    return 0 if name == "prepare" else int(name.partition("/")[0][1:])


def _collect(document: Object, section: str, key: str, read: Callable[[Artifact], Any], artifact: Artifact) -> None:
    """One damaged file costs its own figures and no others."""
    try:
        document[section][key] = read(artifact)
    except (DataError, MissingError) as error:
        document["damaged"].append(str(error))


def _made(artifact: Artifact) -> Object:
    manifest = artifact.require()
    notes = sorted(artifact.folder.glob("a-*/provenance.json"))
    return {
        "result": manifest.result,
        "contentDigest": manifest.content_digest,
        "provenance": _parsed(notes[0]) if notes else {},
    }


def _curves(artifact: Artifact) -> Any:
    return _parsed(artifact.path("curves.json"))


def _samples(artifact: Artifact) -> list[Object]:
    return [_shortened(row) for row in _parsed(artifact.path("samples.json"))]


def _shortened(row: Mapping[str, Any]) -> Object:
    return {
        key: f"{value[:TEXT_CHARACTERS]} … {len(value) - TEXT_CHARACTERS} more characters"
        if isinstance(value, str) and len(value) > TEXT_CHARACTERS
        else value
        for key, value in row.items()
    }


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no whole JSON: restore it") from error


if __name__ == "__main__":
    main()
