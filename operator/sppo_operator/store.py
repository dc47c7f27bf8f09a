"""The folder of `sppo run`: the run as the resource would show it, and the lock that keeps two commands apart.

DIR/run.yaml     the whole resource with its status
DIR/report.html  its report, written again whenever something ended
DIR/.sppo.lock   held by the command that runs here; names its process
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from sppo_operator.errors import BusyError, DamagedError, MissingError, StorageError
from sppo_operator.metadata import metadata_causes, misfit
from sppo_operator.schema import schema_causes, spporun_schema
from sppo_operator.status import records_of
from sppo_operator.target import RUN_FILE

LOCK_FILE = ".sppo.lock"
REPORT_FILE = "report.html"
LOCKS = Path("/proc/locks")
KEPT_METADATA = {"name", "namespace", "generation", "creationTimestamp"}
"""What every file that `sppo run` wrote has, and few manifests that a user put in its place."""


class RunFile:
    """`DIR/run.yaml`, written whole or not at all, and only when something changed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / RUN_FILE
        self._text = ""

    def read(self) -> dict[str, Any] | None:
        """The recorded resource, or None in a new folder.

        Raises DamagedError if the file is not what `write` left, MissingError if it cannot be read.
        """
        try:
            self._text = self.path.read_text("utf-8")
            resource: dict[str, Any] = yaml.load(self._text, Loader=_LOADER)  # noqa: S506 - safe, from C or not
            if not _is_whole(resource):
                raise _damaged(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise MissingError(
                f"{self.path} cannot be read ({error.strerror}): mend that, or name another folder"
            ) from error
        except (yaml.YAMLError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise _damaged(self.path) from error
        return resource

    def write(self, resource: Mapping[str, Any]) -> bool:
        """Record the resource; False if the file says so already."""
        text = yaml_of(resource)
        if text == self._text:
            return False
        replace_file(self.path, text)
        self._text = text
        return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; raises BusyError if another one does. A dead holder's lock is free."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{folder} cannot be used ({error.strerror}): name a folder that can be written") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "of an unknown number"
            raise BusyError(
                f"{folder} is in use by process {holder}: wait for it, stop it, or use another one"
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def holder(folder: Path) -> int | None:
    """The process of the command that runs in the folder; None if none does. Takes no lock that might disturb it."""
    lock = folder / LOCK_FILE
    try:
        found, named = lock.stat(), lock.read_text("utf-8").strip()
        held = LOCKS.read_text("utf-8").splitlines()
    except OSError:
        return None
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    for line in held:
        fields = line.split()
        if fields[1] != "FLOCK":
            continue
        process, (where, _, inode) = fields[4], fields[5].rpartition(":")
        # Some file systems (btrfs, overlays) tell another device here; then it counts that the file names the process.
        if inode == str(found.st_ino) and (where == device or process == named):
            return int(process)
    return None


def _is_whole(resource: Any) -> bool:
    """Whether it is a run as recorded; raises ValueError, KeyError or TypeError where the schema does not look."""
    if not isinstance(resource, dict) or any(schema_causes(resource, spporun_schema())):
        return False
    for record in records_of(resource).values():
        record.seconds  # noqa: B018 - reads its times
    metadata = resource["metadata"]
    if misfit(metadata) is not None or not KEPT_METADATA.issubset(metadata):
        return False
    return isinstance(metadata["generation"], int) and not any(metadata_causes(metadata))


def _damaged(path: Path) -> DamagedError:
    return DamagedError(f"{path} is damaged: restore it, or remove it to start over from the finished pieces beside it")


def yaml_of(resource: Mapping[str, Any]) -> str:
    return str(yaml.dump(resource, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


def replace_file(path: Path, text: str) -> None:
    """Write beside, sync, rename: a reader or a crash sees the old file or the new one; a link goes on leading to it.

    What is there and no regular file, such as a pipe or a device, is written into.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, "utf-8")
        return
    path = path.resolve()
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")  # `sppo report` may write beside a run
    try:
        with beside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except OSError as error:
        error.filename = str(path)  # the name that the user knows
        raise
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# libyaml where PyYAML was built with it: run.yaml is written about once per second.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NO_PLAIN_TEXT = re.compile(r"[-+.]?[0-9].*|[yYnN]", re.DOTALL)


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc] # chosen at run time
    """Quotes what kubectl's YAML takes for a number or a truth value but PyYAML does not, such as 5e-7."""

    def ignore_aliases(self, _: object) -> bool:
        return True


def _text(dumper: Any, value: str) -> yaml.ScalarNode:
    style = "'" if _NO_PLAIN_TEXT.fullmatch(value) else None
    node: yaml.ScalarNode = dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)
    return node


_Dumper.add_representer(str, _text)
