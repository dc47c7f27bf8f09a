"""What the end of a stage means: exit code and result against the contract."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sppo_operator.decide import Outcome
from sppo_operator.result import LOG_CHARACTERS, end_of, is_result, last_lines, parsed, progress_of

RESULT = json.dumps({"metrics": {"rows": 3}, "contentDigest": "abc"}).encode()
ERROR = json.dumps({"error": "prompts.source is empty: add prompts"}).encode()
UNFINISHED = "ended without a result of at most 4096 bytes: see a.log"
TRACEBACK = b"""{"progress": {"done": 1, "total": 2, "unit": "steps"}}
Traceback (most recent call last):
  File "train.py", line 3, in <module>
    step()
    ^^^^^^
RuntimeError: NCCL communicator was aborted

{"progress": {"done": 2, "total": 2, "unit": "steps"}}
"""

ENDS = {
    "done": (0, RESULT, Outcome.SUCCEEDED, 0, ""),
    "done with as long a result as there may be": (0, RESULT.ljust(4096), Outcome.SUCCEEDED, 0, ""),
    "done without a result": (0, b"", Outcome.FAILED, 0, UNFINISHED),
    "done with a torn result": (0, RESULT[:-1], Outcome.FAILED, 0, UNFINISHED),
    "done with a result that is too long": (0, RESULT + b" " * 4096, Outcome.FAILED, 0, UNFINISHED),
    "done with a list": (0, b"[]", Outcome.FAILED, 0, UNFINISHED),
    "done with brackets in brackets": (0, b"[" * 4096, Outcome.FAILED, 0, UNFINISHED),
    "done without metrics": (0, b'{"contentDigest": "abc"}', Outcome.FAILED, 0, UNFINISHED),
    "done without a digest": (0, b'{"metrics": {}}', Outcome.FAILED, 0, UNFINISHED),
    "done with an error": (0, ERROR, Outcome.FAILED, 0, UNFINISHED),
    "a crash that says why": (1, ERROR, Outcome.FAILED, 1, "prompts.source is empty: add prompts"),
    "a crash that says an empty sentence": (1, b'{"error": ""}', Outcome.FAILED, 1, "ended with exit code 1: see a.log"),
    "a crash that says nothing": (1, b"", Outcome.FAILED, 1, "ended with exit code 1: see a.log"),
    "a crash is no success whatever it reports": (1, RESULT, Outcome.FAILED, 1, "ended with exit code 1: see a.log"),
    "a crash that left its log": (1, TRACEBACK, Outcome.FAILED, 1, "ended with exit code 1; the end of its log: RuntimeError: NCCL communicator was aborted"),
    "a crash with a torn result": (1, ERROR[:-1], Outcome.FAILED, 1, "ended with exit code 1: see a.log"),
    "just below the user's codes": (63, ERROR, Outcome.FAILED, 63, "prompts.source is empty: add prompts"),
    "the first of the user's codes": (64, ERROR, Outcome.USER_FAULT, 64, "prompts.source is empty: add prompts"),
    "the last of the user's codes": (78, ERROR, Outcome.USER_FAULT, 78, "prompts.source is empty: add prompts"),
    "just above the user's codes": (79, ERROR, Outcome.FAILED, 79, "prompts.source is empty: add prompts"),
    "a user's fault without a word": (78, b"", Outcome.USER_FAULT, 78, "ended with exit code 78: see a.log"),
    "SIGTERM that was handled": (143, b"", Outcome.DISRUPTED, 143, "stopped by SIGTERM"),
    "SIGTERM that was not": (-15, b"", Outcome.DISRUPTED, 143, "stopped by SIGTERM"),
    "SIGKILL": (-9, b"", Outcome.FAILED, 137, "killed by signal 9, often for lack of memory: see a.log"),
    "SIGKILL, as a shell says it": (137, b"", Outcome.FAILED, 137, "killed by signal 9, often for lack of memory: see a.log"),
    "a fault of memory access": (139, b"Fatal Python error: Segmentation fault", Outcome.FAILED, 139, "killed by signal 11; the end of its log: Fatal Python error: Segmentation fault"),
    "an exit code just below the signals": (128, b"", Outcome.FAILED, 128, "ended with exit code 128: see a.log"),
    "an exit code that is no signal": (255, b"", Outcome.FAILED, 255, "ended with exit code 255: see a.log"),
}  # fmt: skip


@pytest.mark.parametrize(("code", "result", "outcome", "shown", "message"), ENDS.values(), ids=ENDS)
def test_end(code: int, result: bytes, outcome: Outcome, shown: int, message: str) -> None:
    end = end_of(code, result, "a.log")
    assert (end.outcome, end.exit_code, end.message) == (outcome, shown, message)
    assert end.content_digest == ("abc" if outcome is Outcome.SUCCEEDED else "")


def test_a_training_says_where_its_model_is() -> None:
    result = {"metrics": {}, "contentDigest": "abc", "model": "i1/train/a-1/model"}
    assert end_of(0, json.dumps(result).encode(), "a.log").model == "i1/train/a-1/model"
    assert end_of(0, RESULT, "a.log").model == ""


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        ("", ""),
        ("\n \n", ""),
        ("one\n\n  quoted by a traceback\ntwo\n", "one | two"),
        ("one\ntwo\nthree\nfour", "two | three | four"),
        ("x" * 392 + "\nfatal", "x" * 392 + " | fatal"),
        ("x" * 393 + "\nfatal", "fatal"),
        ("fatal: " + "x" * 500, "fatal: " + "x" * 393),
    ],
    ids=[
        "nothing",
        "only space",
        "indented lines quote code",
        "the newest three",
        "as many as fit",
        "whole lines only",
        "one long line",
    ],
)
def test_the_newest_lines_explain_a_failure(log: str, shown: str) -> None:
    assert last_lines(log) == shown


@given(st.text(max_size=3000))
def test_any_log_gives_a_short_end_of_one_line(log: str) -> None:
    shown = last_lines(log)
    assert len(shown) <= LOG_CHARACTERS
    assert len(shown.splitlines()) <= 1


@given(st.integers(0, 255), st.binary(max_size=5000))
def test_any_end_has_a_meaning(code: int, result: bytes) -> None:
    end = end_of(code, result, "a.log")
    assert (end.outcome is Outcome.SUCCEEDED) == (code == 0 and is_result(parsed(result)))
    assert end.message or end.outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        (b'{"progress": {"done": 1, "total": 2, "unit": "prompts"}}', {"done": 1, "total": 2, "unit": "prompts"}),
        (b'{"progress": {"done": 1, "total": 2, "un', None),
        (b'{"progress": {"done": 1}}', None),
        (b'{"progress": 7}', None),
        (b'{"level": "info", "progress": {"done": 1, "total": 2, "unit": "prompts"}}', None),
        (b"loading weights", None),
        (b"", None),
        (b"\xff\xfe", None),
    ],
    ids=["whole", "torn", "incomplete", "no object", "another program's", "other text", "empty", "bytes"],
)
def test_progress(line: bytes, progress: dict[str, object] | None) -> None:
    assert progress_of(line) == progress
