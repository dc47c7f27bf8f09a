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
LOG_BYTES = 8 * 2**20
"""Of the kubelet's 10 MiB: a line whose beginning is gone is no document, and a runtime adds to every 16 KiB."""
CURVE_POINTS = 500
"""Of each curve of one training. Halved, as is the next, until the document is small enough."""
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
        print(results(options.folder, options.digest, options.samples), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    sys.exit(0)


def results(folder: Path, digest: str, samples_of: int | None) -> str:
    """The document; raises MissingError or DataError if the folder is not that run's."""
    _check_owner(folder, digest)
    document = _collected(folder, samples_of)
    points, characters = CURVE_POINTS, TEXT_CHARACTERS
    while True:
        # ASCII: a log passes through many hands, and a lone surrogate of a model's must not end it.
        written = json.dumps(_shortened(document, points, characters))
        if len(written) <= LOG_BYTES or points == 1:
            return written
        points, characters = points // 2, characters // 2


def _collected(folder: Path, samples_of: int | None) -> Object:
    document: Object = {"results": DOCUMENT, "made": {}, "curves": {}, "samples": {}, "damaged": []}
    for name, artifact in _artifacts(folder):
        number = str(_iteration_of(name))
        _collect(document, "made", name, _made, artifact)
        if name.endswith("/train"):
            _collect(document, "curves", number, _curves, artifact)
        if name == f"i{samples_of}/evaluate":
            _collect(document, "samples", number, _samples, artifact)
    return document


def _shortened(document: Object, points: int, characters: int) -> Object:
    """At most so many points of each curve, and so many characters of each text; both say that something is gone."""
    every = {
        number: step
        for number, curves in document["curves"].items()
        if (step := -(-max(map(len, curves.values()), default=0) // points)) > 1
    }
    curves = {
        number: {name: values[:: every.get(number, 1)] for name, values in curves.items()}
        for number, curves in document["curves"].items()
    }
    samples = {number: [_cut(row, characters) for row in rows] for number, rows in document["samples"].items()}
    return document | {"curves": curves, "every": every, "samples": samples}


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


def _curves(artifact: Artifact) -> dict[str, list[Any]]:
    """To six digits: more than a chart shows, and half as long."""
    path = artifact.path("curves.json")
    curves = _parsed(path)
    if not (isinstance(curves, dict) and all(isinstance(values, list) for values in curves.values())):
        raise DataError(f"{path} has no lists of numbers: restore it")
    return {
        name: [float(f"{value:.6g}") if isinstance(value, float) else value for value in values]
        for name, values in curves.items()
    }


def _samples(artifact: Artifact) -> list[Object]:
    path = artifact.path("samples.json")
    samples = _parsed(path)
    if not (isinstance(samples, list) and all(isinstance(row, dict) for row in samples)):
        raise DataError(f"{path} has no list of answers: restore it")
    return samples


def _cut(row: Mapping[str, Any], characters: int) -> Object:
    return {
        key: f"{value[:characters]} … {len(value) - characters} more characters"
        if isinstance(value, str) and len(value) > characters
        else value
        for key, value in row.items()
    }


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no whole JSON: restore it") from error


if __name__ == "__main__":
    main()
