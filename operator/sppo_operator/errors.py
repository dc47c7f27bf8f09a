"""The errors that reach a user, and the exit code of each.

SPPOError
├── UserError            64..78 of sysexits.h: the user must change something, so nobody retries
│   └── InvalidResource  78  the manifest is not one that the API server would accept
└── anything else        1   a bug or a fault of the machine
"""

from __future__ import annotations


class SPPOError(Exception):
    """Base of all errors of this package; its text is for the user."""


class UserError(SPPOError):
    """The user's fault, never retried: the text names field, value and remedy."""

    exit_code = 64


class InvalidResource(UserError):
    """A manifest that is refused, in the words of `kubectl apply`."""

    exit_code = 78
