"""The errors that reach a user, and the exit code of each.

SPPOError
├── UserError            64..78 of sysexits.h: the user must change something, so nobody retries
│   ├── MissingError     66  a file that was named cannot be read
│   ├── DamagedError     65  a file of the workspace is not what this command or a stage wrote
│   ├── StorageError     74  the workspace cannot take the data (full, read-only)
│   ├── BusyError        75  another command runs in the same folder
│   ├── InvalidResource  78  the manifest is not one that the API server would accept
│   ├── KubeconfigError  78  there is no cluster that could be asked
│   ├── ServerError      69  the API server gave no answer to a command, or none that helps
│   └── RightsError      77  the API server does not let this user do it
├── ApiError                 the API server did not do what the operator asked; the operator tries again
│   ├── NotFoundError        404
│   ├── AlreadyExistsError   409, the name is taken
│   ├── ConflictError        409, the object changed since it was read, or has another uid
│   ├── RefusedError         400, 413, 422: the object is not one that it accepts
│   ├── ForbiddenError       403: a missing right, a quota or an admission policy
│   └── UnavailableError     401, 410, 429, 5xx, no connection, no answer in time
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


class KubeconfigError(UserError):
    exit_code = 78


class ServerError(UserError):
    exit_code = 69

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause}: {remedy}")
        self.cause = cause


class RightsError(UserError):
    exit_code = 77


class ApiError(SPPOError):
    """What the API server answered to a call; `status` is the HTTP status, 0 if there was no answer."""

    def __init__(self, message: str, *, call: str = "", status: int = 0, reason: str = "") -> None:
        super().__init__(f"{call}: {message}" if call else message)
        self.call = call
        self.message = message
        self.status = status
        self.reason = reason


class NotFoundError(ApiError):
    pass


class AlreadyExistsError(ApiError):
    pass


class ConflictError(ApiError):
    pass


class RefusedError(ApiError):
    pass


class ForbiddenError(ApiError):
    pass


class UnavailableError(ApiError):
    pass
