"""The Judge oracle: an OpenAI-compatible chat endpoint reads a prompt and two responses and names the better one.

It is asked both ways round: v_ij is 1 if the response shown first wins, 0 if it loses, 1/2 at a tie, and
P_ij = (v_ij + 1 - v_ji) / 2 takes out a preference for a position.

With `opponents` = m > 0, each response meets at most m others; pairs that were left out count as 1/2 ("unasked"), so
win rates move towards 1/2, and P of two responses then depends on which others there are.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import re
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sppo_trainer.config import Judge
from sppo_trainer.errors import ConfigError, SPPOError
from sppo_trainer.oracle import Comparison, Judgement, Pair, Scale, pair_table

CONCURRENT_REQUESTS = 8
ATTEMPTS = 6
TIMEOUT_SECONDS = 120.0
BACKOFF_SECONDS = 1.0
"""Before the second attempt; doubled before each further one."""
MAX_BACKOFF_SECONDS = 60.0
RETRIED_STATUSES = {408, 409, 425, 429}  # and all from 500

QUESTION = "Which response is better, A or B? Answer with one word: A, B or tie."
VERDICT = re.compile(r"\W*(?:(?:answer|verdict|winner|response)\b\W*)*(a|b|tie)\W*", re.IGNORECASE)
VALUES = {"a": 1.0, "b": 0.0, "tie": 0.5}

Message = dict[str, str]


class JudgeOracle:
    """Raises ConfigError if the endpoint refuses the request, SPPOError (to be retried) if it stays out of reach.

    Counts: "unparsable" verdicts, asked twice and taken as ties; "unasked" ordered pairs, see above.
    """

    scale: Scale = "Probability"

    def __init__(
        self,
        config: Judge,
        *,
        key: str | None = None,
        field: str = "preference",
        backoff_seconds: float = BACKOFF_SECONDS,
    ) -> None:
        if config.opponents < 0:
            raise ConfigError(f"{field}.judge.opponents is {config.opponents}: use 0 for all pairs, or at least 1")
        self._config = config
        self._client = ChatClient(config.endpoint, key=key, field=field, backoff_seconds=backoff_seconds)

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        asked = [chosen_pairs(comparison, self._config.opponents) for comparison in comparisons]
        with ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool:
            verdicts = pool.map(
                lambda question: self._verdict(*question),
                [(comparison, i, j) for comparison, pairs in zip(comparisons, asked, strict=True) for i, j in pairs],
            )
            return [_judgement(*item, verdicts) for item in zip(comparisons, asked, strict=True)]

    def _verdict(self, comparison: Comparison, i: int, j: int) -> float | None:
        """v_ij, or None if the judge gave no verdict twice."""
        messages = question(self._config.rubric, comparison, i, j)
        for _ in range(2):
            answer = self._client.complete({"model": self._config.model, "messages": messages, "temperature": 0})
            value = parse_verdict(answer)
            if value is not None:
                return value
            messages = [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": QUESTION}]
        return None


def _judgement(comparison: Comparison, asked: Sequence[Pair], verdicts: Any) -> Judgement:
    answers = {pair: next(verdicts) for pair in asked}
    values = {pair: 0.5 if value is None else value for pair, value in answers.items()}
    return Judgement(
        values_KK=pair_table(comparison, [values.get(pair, 0.5) for pair in comparison.pairs]),
        counts={
            "unparsable": sum(value is None for value in answers.values()),
            "unasked": len(comparison.pairs) - len(asked),
        },
    )


def chosen_pairs(comparison: Comparison, opponents: int) -> list[Pair]:
    """The pairs to ask: all, or so many that no response meets more than `opponents` others, both ways round.

    The choice is drawn with a seed from the texts: the same whoever asks, and whenever.
    """
    if opponents == 0:
        return list(comparison.pairs)
    texts = [message["content"] for message in comparison.messages] + [item.text for item in comparison.responses]
    matches = sorted({(min(pair), max(pair)) for pair in comparison.pairs})
    seed = hashlib.sha256(json.dumps(texts).encode()).digest()
    random.Random(seed).shuffle(matches)
    met: Counter[int] = Counter()
    chosen = set()
    for i, j in matches:
        if met[i] < opponents and met[j] < opponents:
            met.update((i, j))
            chosen.update({(i, j), (j, i)})
    return [pair for pair in comparison.pairs if pair in chosen]


def question(rubric: str, comparison: Comparison, i: int, j: int) -> list[Message]:
    """The rubric, unchanged, as system message; the texts as JSON, so that no response can end its own quotation."""
    texts = {
        "conversation": [dict(message) for message in comparison.messages],
        "A": comparison.responses[i].text,
        "B": comparison.responses[j].text,
    }
    return [
        {"role": "system", "content": rubric},
        {"role": "user", "content": f"{json.dumps(texts, ensure_ascii=False, indent=1)}\n\n{QUESTION}"},
    ]


def parse_verdict(answer: str) -> float | None:
    """The verdict in the last line of an answer, or None."""
    lines = answer.strip().splitlines()
    match = VERDICT.fullmatch(lines[-1]) if lines else None
    return VALUES[match[1].lower()] if match else None


class ChatClient:
    """POSTs chat completions, with retries."""

    def __init__(self, endpoint: str, *, key: str | None, field: str, backoff_seconds: float) -> None:
        self._where = f"{field}.judge.endpoint {endpoint}"
        if not endpoint.startswith(("http://", "https://")):
            raise ConfigError(f"{self._where} is no http(s) URL: give one such as https://host/v1")
        path = "/chat/completions"
        self._url = endpoint if endpoint.endswith(path) else endpoint.rstrip("/") + path
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._backoff_seconds = backoff_seconds
        self._opener = urllib.request.build_opener(_NoRedirects)

    def complete(self, body: dict[str, Any]) -> str:
        """The text of the first choice; "" if the model gave none."""
        answer = self._post(json.dumps(body).encode())
        try:
            return str(json.loads(answer)["choices"][0]["message"]["content"] or "")
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{self._where} gave no chat completion: give an OpenAI-compatible endpoint") from error

    def _post(self, body: bytes) -> bytes:
        reason = ""
        for attempt in range(ATTEMPTS):
            wait = self._backoff_seconds * 2**attempt
            request = urllib.request.Request(self._url, data=body, headers=self._headers)  # noqa: S310 checked in __init__
            try:
                with self._opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                    answer: bytes = response.read()
                    return answer
            except urllib.error.HTTPError as error:
                with error:
                    if error.code < 500 and error.code not in RETRIED_STATUSES:
                        raise self._refused(error) from error
                    reason = f"HTTP {error.code}"
                    wait = max(wait, _retry_after_seconds(error))
            except (OSError, http.client.HTTPException) as error:
                reason = str(error) or type(error).__name__
            if attempt + 1 < ATTEMPTS:
                time.sleep(min(wait, MAX_BACKOFF_SECONDS))
        raise SPPOError(f"{self._where} failed {ATTEMPTS} times, last with {reason}: check that it is up and reachable")

    def _refused(self, error: urllib.error.HTTPError) -> ConfigError:
        if error.code in (401, 403):  # the answer's text may quote the key
            return ConfigError(
                f"{self._where} answered HTTP {error.code}: check the key in the Secret that judge.apiKeySecret names"
            )
        text = error.read(300).decode(errors="replace").replace("\n", " ")
        return ConfigError(f"{self._where} answered HTTP {error.code} ({text}): check endpoint and model")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host, so it is an error."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _retry_after_seconds(error: urllib.error.HTTPError) -> float:
    value = error.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else 0.0
