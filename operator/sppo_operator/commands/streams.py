"""Standard output and error of a command: one that carries a run out may outlive the terminal it was started from."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from sppo_operator.errors import StorageError

PLAIN = {"✓": "+", "✗": "x", "▶": ">", "…": "~", "‖": "=", "↻": "@", "·": ".", "η": "eta", "²": "2", "�": "?", "━": "-"}
"""For an encoding that lacks them; what else it lacks is a question mark."""


def _plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    """A byte of a file's name that is no text stays that byte, so that the name can be used."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start]
    if "\udc80" <= lacking <= "\udcff":
        return lacking.encode("utf-8", "surrogateescape"), error.start + 1
    return PLAIN.get(lacking, "?"), error.start + 1


codecs.register_error("sppo.plainly", _plainly)


class Stream(io.TextIOWrapper):
    """Says in one sentence that it cannot be written; a `lasting` one drops the text instead.

    Only a pipe whose reader went away raises BrokenPipeError, which ends a command as it ends any filter.
    """

    lasting = False

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        if self.lasting:
            return
        silence()
        raise StorageError(
            f"standard output cannot be written ({error.strerror}): free space, or send it elsewhere"
        ) from error


def prepare_streams() -> None:
    """Replace sys.stdout and sys.stderr; one that is closed (`>&-`, where Python has None) drops all."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        buffer = Path(os.devnull).open("wb") if stream is None else stream.buffer  # noqa: SIM115 - never closed
        encoding = "utf-8" if stream is None else stream.encoding
        setattr(sys, name, Stream(buffer, encoding=encoding, errors="sppo.plainly", line_buffering=True))
    make_lasting(sys.stderr)  # nobody could be told


def make_lasting(stream: TextIO) -> None:
    """A closed terminal (EIO) or a full disk must not end hours of training."""
    assert isinstance(stream, Stream), "prepare_streams came first"
    stream.lasting = True


def silence() -> None:
    """Send what standard output still holds to nowhere: it cannot be written, and the exit would flush it again."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
