"""Standard output and error of a command that may outlive the terminal it was started from."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress
from pathlib import Path

PLAIN = {"✓": "+", "✗": "x", "▶": ">", "…": "~", "‖": "=", "↻": "@", "·": ".", "η": "eta", "²": "2", "�": "?", "━": "-"}
"""For an encoding that lacks them; what else it lacks is a question mark."""


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(PLAIN.get(character, "?") for character in lacking), error.end


codecs.register_error("sppo.plainly", _plainly)


class LastingStream(io.TextIOWrapper):
    """Drops what can no longer be written: a closed terminal (EIO) or a full disk must not end hours of training.

    Only a pipe whose reader went away still raises BrokenPipeError, which ends a command as it ends any filter.
    """

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError:
            return


def make_lasting() -> None:
    """Replace sys.stdout and sys.stderr; one that is closed (`>&-`, where Python has None) drops all."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        buffer = Path(os.devnull).open("wb") if stream is None else stream.buffer  # noqa: SIM115 - never closed
        encoding = "utf-8" if stream is None else stream.encoding
        setattr(sys, name, LastingStream(buffer, encoding=encoding, errors="sppo.plainly", line_buffering=True))


def silence() -> None:
    """Send what standard output still holds to nowhere: its reader is gone, and the exit would flush it again."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
