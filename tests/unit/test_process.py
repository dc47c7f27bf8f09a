"""What the end of a stage means: exit code and result against the contract."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sppo_operator.decide import Outcome
from sppo_operator.process import end_of, progress_of

LOG = Path("a.log")
RESULT = json.dumps({"metrics": {"rows": 3}, "contentDigest": "abc"}).encode()
ERROR = json.dumps({"error": "prompts.source is empty: add prompts"}).encode()
UNFINISHED = "ended without a result of at most 4096 bytes: see a.log"

ENDS = {
    "done": (0, RESULT, Outcome.SUCCEEDED, 0, ""),
    "done without a result": (0, b"", Outcome.FAILED, 0, UNFINISHED),
    "done with a torn result": (0, RESULT[:-1], Outcome.FAILED, 0, UNFINISHED),
    "done with a result that is too long": (0, RESULT + b" " * 4096, Outcome.FAILED, 0, UNFINISHED),
    "done with a list": (0, b"[]", Outcome.FAILED, 0, UNFINISHED),
    "done without metrics": (0, b'{"contentDigest": "abc"}', Outcome.FAILED, 0, UNFINISHED),
    "done without a digest": (0, b'{"metrics": {}}', Outcome.FAILED, 0, UNFINISHED),
    "done with an error": (0, ERROR, Outcome.FAILED, 0, UNFINISHED),
    "a crash that says why": (1, ERROR, Outcome.FAILED, 1, "prompts.source is empty: add prompts"),
    "a crash that says nothing": (1, b"", Outcome.FAILED, 1, "ended with exit code 1: see a.log"),
    "a crash is no success whatever it reports": (1, RESULT, Outcome.FAILED, 1, "ended with exit code 1: see a.log"),
    "just below the user's codes": (63, ERROR, Outcome.FAILED, 63, "prompts.source is empty: add prompts"),
    "the first of the user's codes": (64, ERROR, Outcome.USER_FAULT, 64, "prompts.source is empty: add prompts"),
    "the last of the user's codes": (78, ERROR, Outcome.USER_FAULT, 78, "prompts.source is empty: add prompts"),
    "just above the user's codes": (79, ERROR, Outcome.FAILED, 79, "prompts.source is empty: add prompts"),
    "a user's fault without a word": (78, b"", Outcome.USER_FAULT, 78, "ended with exit code 78: see a.log"),
    "SIGTERM that was handled": (143, b"", Outcome.DISRUPTED, 143, "stopped by SIGTERM"),
    "SIGTERM that was not": (-15, b"", Outcome.DISRUPTED, 143, "stopped by SIGTERM"),
    "SIGKILL": (-9, b"", Outcome.FAILED, 137, "killed by signal 9, often for lack of memory: see a.log"),
}


@pytest.mark.parametrize(("code", "result", "outcome", "shown", "message"), ENDS.values(), ids=ENDS)
def test_end(code: int, result: bytes, outcome: Outcome, shown: int, message: str) -> None:
    end = end_of(code, result, LOG)
    assert (end.outcome, end.exit_code, end.message) == (outcome, shown, message)
    assert end.content_digest == ("abc" if outcome is Outcome.SUCCEEDED else "")


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        (b'{"progress": {"done": 1, "total": 2, "unit": "prompts"}}', {"done": 1, "total": 2, "unit": "prompts"}),
        (b'{"progress": {"done": 1, "total": 2, "un', None),
        (b'{"progress": {"done": 1}}', None),
        (b'{"progress": 7}', None),
        (b"loading weights", None),
        (b"", None),
        (b"\xff\xfe", None),
    ],
    ids=["whole", "torn", "incomplete", "no object", "other text", "empty", "bytes"],
)
def test_progress(line: bytes, progress: dict[str, object] | None) -> None:
    assert progress_of(line) == progress
