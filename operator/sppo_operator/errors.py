"""The errors that reach a user, and the exit code of each.

SPPOError
├── UserError            64..78 of sysexits.h: the user must change something, so nobody retries
│   ├── MissingError     66  a file that was named cannot be read
│   ├── DamagedError     65  a file of the workspace is not what this command or a stage wrote
│   ├── StorageError     74  the workspace cannot take the data (full, read-only)
│   ├── BusyError        75  another command runs in the same folder
│   └── InvalidResource  78  the manifest is not one that the API server would accept
└── anything else        1   a bug or a fault of the machine
"""

from __future__ import annotations


class SPPOError(Exception):
    """Base of all errors of this package; its text is for the user."""


class UserError(SPPOError):
    """The user's fault, never retried: the text names field, value and remedy."""

    exit_code = 64


class MissingError(UserError):
    exit_code = 66


class DamagedError(UserError):
    exit_code = 65


class StorageError(UserError):
    exit_code = 74


class BusyError(UserError):
    exit_code = 75


class InvalidResource(UserError):  # noqa: N818 - as the API server says it: reason Invalid
    """A manifest that is refused, in the words of `kubectl apply`."""

    exit_code = 78
