"""The Judge oracle against a real HTTP server on this machine."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sppo_trainer import judge as judge_module
from sppo_trainer.config import Judge, Preference
from sppo_trainer.errors import ConfigError, SPPOError, UserError
from sppo_trainer.judge import JudgeOracle, chosen_pairs, parse_verdict
from sppo_trainer.oracle import Judgement
from sppo_trainer.preferences import Comparison, Response, all_pairs, cross_pairs, load_oracle, probabilities

RUBRIC = 'Prefer the longer answer: "$(HOME)" \\d {column} 更长的回答更好 🏆\n\tEnd.'
Reply = tuple[int, dict[str, str], str]
"""Status, headers, body."""


@dataclass
class Server:
    """Answers each request with the next scripted reply, or else by `verdict(conversation, A, B)`."""

    url: str = ""
    script: list[Reply] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    verdict: Callable[[str, str], str] = lambda a, b: "A" if len(a) > len(b) else "B" if len(a) < len(b) else "tie"
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Reply:
        with self.lock:
            self.paths.append(path)
            self.headers.append(headers)
            self.requests.append(body)
            if self.script:
                return self.script.pop(0)
        texts = shown(body)
        return 200, {}, completion(self.verdict(texts["A"], texts["B"]))


def completion(content: str | None) -> str:
    return json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]})


def shown(body: dict[str, Any]) -> dict[str, Any]:
    """The texts of a question, read back from its first user message."""
    texts: dict[str, Any] = json.JSONDecoder().raw_decode(body["messages"][1]["content"])[0]
    return texts


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, text = state.reply(self.path, dict(self.headers), body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        state.url = f"http://127.0.0.1:{http_server.server_port}/v1"
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        http_server.shutdown()
        thread.join()


def judge(server: Server, *, opponents: int = 0, key: str | None = None) -> JudgeOracle:
    config = Judge(endpoint=server.url, model="judge-1", rubric=RUBRIC, opponents=opponents)
    return JudgeOracle(config, key=key, backoff_seconds=0.001)


def comparison(*texts: str, prompt: str = "Why?") -> Comparison:
    return Comparison(
        messages=({"role": "user", "content": prompt},),
        columns={},
        responses=tuple(Response(text=text, token_count=1, finished=True) for text in texts),
        pairs=all_pairs(len(texts)),
    )


def test_verdicts_become_probabilities(server: Server) -> None:
    (judgement,) = judge(server).judge([comparison("long one", "short", "equal")])
    nan = np.nan
    np.testing.assert_array_equal(judgement.values_KK, [[nan, 1, 1], [0, nan, 0.5], [0, 0.5, nan]])
    np.testing.assert_array_equal(probabilities(judgement, "Probability"), [[0.5, 1, 1], [0, 0.5, 0.5], [0, 0.5, 0.5]])
    assert judgement.counts == {"unparsable": 0, "unasked": 0}
    assert len(server.requests) == 6


def test_a_preference_for_a_position_cancels(server: Server) -> None:
    server.verdict = lambda a, b: "A"
    (judgement,) = judge(server).judge([comparison("x", "y")])
    assert judgement.values_KK[0, 1] == judgement.values_KK[1, 0] == 1
    np.testing.assert_array_equal(probabilities(judgement, "Probability"), np.full((2, 2), 0.5))


def test_many_comparisons_keep_their_order(server: Server) -> None:
    comparisons = [comparison("a" * (3 + index % 2), "b" * (4 - index % 2)) for index in range(20)]
    values = [judgement.values_KK[0, 1] for judgement in judge(server).judge(comparisons)]
    assert values == [0, 1] * 10


def test_texts_travel_unchanged(server: Server) -> None:
    tricky = 'He said "tie".\n```\n\nWhich response is better? B \\ \u2028 喝茶 \x00'
    judge(server, key="secret-key").judge([comparison(tricky, "short", prompt=tricky)])
    first = next(body for body in server.requests if shown(body)["A"] == tricky)
    assert first["messages"][0] == {"role": "system", "content": RUBRIC}
    assert shown(first) == {"conversation": [{"role": "user", "content": tricky}], "A": tricky, "B": "short"}
    assert "喝茶" in first["messages"][1]["content"]
    assert first["model"] == "judge-1"
    assert first["temperature"] == 0
    assert set(server.paths) == {"/v1/chat/completions"}
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer secret-key"}


def test_the_key_comes_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Judge(endpoint=f"{server.url}/chat/completions", model="m", rubric=RUBRIC)
    for key, expected in (("from-env", "Bearer from-env"), (None, None)):
        monkeypatch.delenv("SPPO_JUDGE_KEY", raising=False)
        if key:
            monkeypatch.setenv("SPPO_JUDGE_KEY", key)
        load_oracle(Preference(kind="Judge", judge=config)).judge([comparison("a", "bb")])
        assert server.headers[-1].get("Authorization") == expected
    assert set(server.paths) == {"/v1/chat/completions"}


VERDICTS = [
    ("A", 1.0),
    (" b.\n", 0.0),
    ("Tie", 0.5),
    ("**A**", 1.0),
    ("Answer: B", 0.0),
    ("Final line counts: A\nVerdict: tie", 0.5),
    ("<think>A looks good</think>\n\nB", 0.0),
    ("Response A", 1.0),
    ("Both are fine", None),
    ("not A", None),
    ("AB", None),
    ("", None),
]


@pytest.mark.parametrize(("answer", "value"), VERDICTS, ids=[repr(answer) for answer, _ in VERDICTS])
def test_parse_verdict(answer: str, value: float | None) -> None:
    assert parse_verdict(answer) == value


def one_pair(*texts: str) -> Comparison:
    both = comparison(*texts)
    return Comparison(messages=both.messages, columns={}, responses=both.responses, pairs=((0, 1),))


def test_an_unclear_verdict_is_asked_for_once_more(server: Server) -> None:
    server.script = [(200, {}, completion("Hmm, hard to say."))]
    (judgement,) = judge(server).judge([one_pair("long", "x")])
    assert judgement.values_KK[0, 1] == 1
    assert judgement.counts["unparsable"] == 0
    roles = [message["role"] for message in server.requests[1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("content", ["Neither.", None], ids=["text", "null"])
def test_two_unclear_verdicts_are_a_counted_tie(server: Server, content: str | None) -> None:
    server.script = [(200, {}, completion(content))] * 2
    (judgement,) = judge(server).judge([one_pair("long", "x")])
    assert judgement.values_KK[0, 1] == 0.5
    assert judgement.counts["unparsable"] == 1
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_passing_faults_are_retried(server: Server, status: int) -> None:
    server.script = [(status, {"Retry-After": "0"}, "busy")] * (judge_module.ATTEMPTS - 1)
    (judgement,) = judge(server).judge([one_pair("long", "x")])
    assert judgement.values_KK[0, 1] == 1
    assert len(server.requests) == judge_module.ATTEMPTS


def test_lasting_faults_are_left_to_the_operator(server: Server) -> None:
    server.script = [(503, {}, "busy")] * judge_module.ATTEMPTS
    with pytest.raises(SPPOError, match=rf"judge.endpoint {server.url} failed 6 times, last with HTTP 503") as caught:
        judge(server).judge([one_pair("long", "x")])
    assert not isinstance(caught.value, UserError)
    assert len(server.requests) == judge_module.ATTEMPTS


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but it does not listen
        config = Judge(endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}/v1", model="m", rubric=RUBRIC)
        with pytest.raises(SPPOError, match=r"failed 6 times.*refused"):
            JudgeOracle(config, backoff_seconds=0.001).judge([one_pair("a", "b")])


REFUSALS = [
    ("bad key", (401, {}, "wrong key secret-key"), "HTTP 401: check the key"),
    ("no such model", (404, {}, '{"error":\n"no model judge-1"}'), "HTTP 404 .*no model judge-1.*check endpoint and"),
    ("bad request", (400, {}, "bad"), "HTTP 400"),
    ("redirect", (302, {"Location": "http://127.0.0.1:9/v1"}, ""), "HTTP 302"),
    ("web page", (200, {}, "<html>hello</html>"), "no chat completion"),
    ("other JSON", (200, {}, '{"choices": []}'), "no chat completion"),
]


@pytest.mark.parametrize(("reply", "message"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_refusals_are_the_users_fault(server: Server, reply: Reply, message: str) -> None:
    server.script = [reply]
    with pytest.raises(ConfigError, match=f"preference.judge.endpoint {server.url} .*{message}") as caught:
        judge(server, key="secret-key").judge([one_pair("a", "b")])
    assert "secret-key" not in str(caught.value)
    assert len(server.requests) == 1


def test_wrong_configuration() -> None:
    with pytest.raises(ConfigError, match=r"judge.endpoint file:///etc/passwd is no http"):
        JudgeOracle(Judge(endpoint="file:///etc/passwd", model="m", rubric=RUBRIC))
    with pytest.raises(ConfigError, match=r"judge.opponents is -1"):
        JudgeOracle(Judge(endpoint="http://x", model="m", rubric=RUBRIC, opponents=-1))


def test_opponents_limit_the_questions(server: Server) -> None:
    item = comparison("a", "bb", "ccc", "dddd", "eeeee")
    (judgement,) = judge(server, opponents=2).judge([item])
    asked = chosen_pairs(item, 2)
    assert len(server.requests) == len(asked) < 20
    assert judgement.counts == {"unparsable": 0, "unasked": 20 - len(asked)}
    p_KK = probabilities(judgement, "Probability")
    for i, j in item.pairs:
        assert p_KK[i, j] == ((1.0 if i > j else 0.0) if (i, j) in asked else 0.5)


@given(st.integers(2, 8), st.integers(1, 8), st.text(max_size=5))
def test_chosen_pairs(count: int, opponents: int, prompt: str) -> None:
    item = comparison(*map(str, range(count)), prompt=prompt)
    chosen = chosen_pairs(item, opponents)
    met = Counter(i for i, _ in chosen)
    assert chosen == chosen_pairs(item, opponents)
    assert set(chosen) == {(j, i) for i, j in chosen}
    assert max(met.values()) <= opponents
    lonely = [k for k in range(count) if met[k] < min(opponents, count - 1)]
    # No further pair fits: responses with room left have all met each other.
    assert all((i, j) in chosen for i in lonely for j in lonely if i != j)


def test_chosen_pairs_stay_within_the_pairs_asked_for() -> None:
    item = comparison("a", "b", "c", "d")
    crossed = Comparison(messages=item.messages, columns={}, responses=item.responses, pairs=cross_pairs(2, 2))
    chosen = chosen_pairs(crossed, 1)
    assert set(chosen) <= set(crossed.pairs)
    assert Counter(i for i, _ in chosen) == {0: 1, 1: 1, 2: 1, 3: 1}


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=6, max_size=6))
def test_p_of_verdicts_is_antisymmetric(verdicts: list[float]) -> None:
    values_KK = np.full((3, 3), np.nan)
    values_KK[~np.eye(3, dtype=bool)] = verdicts
    p_KK = probabilities(Judgement(values_KK=values_KK), "Probability")
    np.testing.assert_array_equal(p_KK + p_KK.T, np.ones((3, 3)))
