"""The pod failure policy of every Job, in the order of its rules: what builds a Job and what reads its end share it."""

from __future__ import annotations

from typing import Final

USER_FAULT = range(64, 79)
"""Exit codes of sysexits.h: the user's or the data's fault, and the same again would fail again."""
TERMINATED: Final = 143
"""The exit code of a stage that was asked to stop: 128 + SIGTERM."""

USER_FAULT_RULE: Final = 0
DISRUPTION_RULE: Final = 1
TERMINATED_RULE: Final = 2
