"""The errors a stage can end with, and the exit code of each.

SPPOError
├── UserError            64..78 of sysexits.h: the user or the data must change, so nobody retries
│   ├── ConfigError      78  a field of the run is wrong
│   ├── DataError        65  the content of prompts, responses or artifacts is wrong
│   ├── MissingError     66  a file, folder or column that was named does not exist
│   ├── DivergedError    70  training produced a number that is not finite
│   └── StorageError     74  the workspace cannot take the data (full, read-only)
└── anything else        1   a bug or a fault of the machine: the operator retries it

143 (SIGTERM) is no error: see `stage.main`.
"""

from __future__ import annotations


class SPPOError(Exception):
    """Base of all errors of this package; its text is one sentence for the user."""


class UserError(SPPOError):
    """The user's or the data's fault, never retried: the sentence names field, value and remedy."""

    exit_code = 64


class DataError(UserError):
    exit_code = 65


class MissingError(UserError):
    exit_code = 66


class DivergedError(UserError):
    exit_code = 70


class StorageError(UserError):
    exit_code = 74


class ConfigError(UserError):
    exit_code = 78
