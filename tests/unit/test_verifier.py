"""The Verifier oracle, and P as it follows from any oracle's table."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sppo_trainer import verifier as verifier_module
from sppo_trainer.config import Preference, Rule, Verifier
from sppo_trainer.errors import ConfigError, DataError, MissingError
from sppo_trainer.oracle import Judgement
from sppo_trainer.preferences import Comparison, Response, all_pairs, cross_pairs, load_oracle, probabilities
from sppo_trainer.verifier import VerifierOracle, last_number


def response(text: str, *, token_count: int = 7, finished: bool = True) -> Response:
    return Response(text=text, token_count=token_count, finished=finished)


def comparison(*responses: Response, columns: dict[str, Any] | None = None) -> Comparison:
    return Comparison(
        messages=({"role": "user", "content": "Question?"},),
        columns=columns or {},
        responses=responses,
        pairs=all_pairs(len(responses)),
    )


def judged(rules: list[Rule], *responses: Response, columns: dict[str, Any] | None = None) -> Judgement:
    return VerifierOracle(Verifier(rules=tuple(rules))).judge([comparison(*responses, columns=columns)])[0]


def score(rule: Rule, text: str, **columns: Any) -> float:
    scores_K = judged([rule], response(text), columns=columns).scores_K
    assert scores_K is not None
    return float(scores_K[0])


REGEX = [
    ("found anywhere", "b+", "aabba", {}, 1),
    ("absent", "c", "aabba", {}, 0),
    ("placeholder", "^{thing} is", "tea is hot", {"thing": "tea"}, 1),
    ("placeholder is escaped", "{thing}", "axb", {"thing": "a.b"}, 0),
    ("escaped value matches itself", "{thing}", "costs $5 (a.b)", {"thing": "$5 (a.b)"}, 1),
    ("number in the row", "{n} apples", "12 apples", {"n": 12}, 1),
    ("quantifier", r"\b\d{2}\b", "in 42 days", {}, 1),
    ("quantifier does not match", r"\b\d{2}\b", "in 142 days", {}, 0),
    ("range quantifier", r"^a{1,3}$", "aaa", {}, 1),
    ("property is no placeholder", r"^\p{Lu}", "Österreich", {}, 1),
    ("escaped brace is no placeholder", r"\{name\}", "hello {name}", {}, 1),
    ("placeholder after an escaped backslash", r"\\{name}", r"\tea", {"name": "tea"}, 1),
    ("two placeholders", "{a}-{b}", "x-y", {"a": "x", "b": "y"}, 1),
    ("other alphabets", "{词}", "喝茶吧", {"词": "茶"}, 1),
]


@pytest.mark.parametrize(
    ("pattern", "text", "columns", "expected"), [row[1:] for row in REGEX], ids=[r[0] for r in REGEX]
)
def test_regex(pattern: str, text: str, columns: dict[str, Any], expected: float) -> None:
    assert score(Rule(kind="Regex", pattern=pattern), text, **columns) == expected


LENGTH = [
    ("words at min", Rule(kind="Length", min=3, max=5), response("one two  three\n"), 1),
    ("words below min", Rule(kind="Length", min=3, max=5), response("one two"), 0),
    ("words at max", Rule(kind="Length", max=2), response("one two"), 1),
    ("words above max", Rule(kind="Length", max=2), response("one two three"), 0),
    ("max 0", Rule(kind="Length", max=0), response(" "), 1),
    ("characters count spaces", Rule(kind="Length", unit="Characters", max=3), response("a b"), 1),
    ("tokens are the sampler's", Rule(kind="Length", unit="Tokens", min=9), response("x", token_count=9), 1),
    ("finished", Rule(kind="Finished"), response("x", finished=True), 1),
    ("cut", Rule(kind="Finished"), response("x", finished=False), 0),
]


@pytest.mark.parametrize(("rule", "item", "expected"), [row[1:] for row in LENGTH], ids=[row[0] for row in LENGTH])
def test_length_and_finish(rule: Rule, item: Response, expected: float) -> None:
    assert judged([rule], item).passed_K == [bool(expected)]


EXACT = [
    ("whole response, trimmed", None, " Paris \n", "Paris", 1),
    ("case matters", None, "paris", "Paris", 0),
    ("more than the answer", None, "It is Paris", "Paris", 0),
    ("group of the pattern", "answer is (\\w+)", "The answer is Paris.", "Paris", 1),
    ("no group: the whole match", "P\\w+", "It is Paris.", " Paris", 1),
    ("the last match counts", "answer: (\\w)", "answer: B ... no, answer: C", "C", 1),
    ("pattern not found", "answer: (\\w)", "C", "C", 0),
    ("group took no part", "x|(y)", "x", "x", 0),
    ("number in the row", None, "42", 42, 1),
]


@pytest.mark.parametrize(("pattern", "text", "cell", "expected"), [row[1:] for row in EXACT], ids=[r[0] for r in EXACT])
def test_exact(pattern: str | None, text: str, cell: Any, expected: float) -> None:
    assert score(Rule(kind="Exact", column="answer", pattern=pattern), text, answer=cell) == expected


NUMBERS = {
    "42": Fraction(42),
    "It is 7, or rather 8.": Fraction(8),
    "1,234": Fraction(1234),
    "-1,234,567.5": Fraction(-2469135, 2),
    "1,23": Fraction(23),
    "1,2345": Fraction(2345),
    "-3.5": Fraction(-7, 2),
    "\u22123.5": Fraction(-7, 2),
    "+2": Fraction(2),
    "10-3": Fraction(3),
    "= -3": Fraction(-3),
    "1e3": Fraction(1000),
    "2.5E-1": Fraction(1, 4),
    ".5": Fraction(1, 2),
    "50%": Fraction(50),
    "$5": Fraction(5),
    "**42**": Fraction(42),
    "_42_": Fraction(42),
    "\\boxed{42}": Fraction(42),
    "5kg": Fraction(5),
    "0.1": Fraction(1, 10),
    "H2O": None,
    "none": None,
    "": None,
}


@pytest.mark.parametrize(("text", "expected"), NUMBERS.items(), ids=NUMBERS.keys())
def test_last_number(text: str, expected: Fraction | None) -> None:
    assert last_number(text) == expected


def test_huge_numbers_cost_nothing() -> None:
    assert last_number("9" * 10_000) == 10**10_000 - 1
    assert last_number("= 1e999999999") == 1  # too large an exponent for an exact number: not read as one


NUMBER_RULES = [
    ("equal in another notation", {}, "1,000.0", "1e3", 1),
    ("exact by default", {}, "3.14", 3.1415, 0),
    ("at the tolerance", {"tolerance": 0.01}, "3.15", 3.14, 1),
    ("beyond the tolerance", {"tolerance": 0.01}, "3.1501", 3.14, 0),
    ("decimal, not binary", {"tolerance": 0.1}, "0.3", 0.2, 1),
    ("pattern's group", {"pattern": r"\\boxed\{(.+?)\}"}, r"\boxed{1,234} of 5", 1234, 1),
    ("pattern not found", {"pattern": "#### (.*)"}, "42", 42, 0),
    ("no number", {}, "forty-two", 42, 0),
    ("the row's last number", {}, "5", "2 + 3 = 5\n#### 5", 1),
    ("percent", {}, "50%", "50", 1),
]


@pytest.mark.parametrize(
    ("fields", "text", "cell", "expected"), [row[1:] for row in NUMBER_RULES], ids=[row[0] for row in NUMBER_RULES]
)
def test_number(fields: dict[str, Any], text: str, cell: Any, expected: float) -> None:
    assert score(Rule(kind="Number", column="answer", **fields), text, answer=cell) == expected


JSON = [
    ("all keys", '{"a": 1, "b": null}', 1),
    ("half of the keys", '{"a": 1, "c": 2}', 0.5),
    ("surrounding space", ' {"a": 1, "b": 2}\n', 1),
    ("fenced block", 'Here:\n```json\n{"a": 1, "b": 2}\n```\nDone.', 1),
    ("second block is the object", '```\n[1]\n```\n```\n{"a": 1}\n```', 0.5),
    ("no object", "[1, 2]", 0),
    ("broken", '{"a": 1', 0),
    ("nested too deeply", "[" * 100_000, 0),
]


@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in JSON], ids=[row[0] for row in JSON])
def test_json(text: str, expected: float) -> None:
    assert score(Rule(kind="JSON", keys=("a", "b")), text) == expected


def test_weighted_scores_pass_and_preference() -> None:
    rules = [Rule(kind="Finished", weight=3), Rule(kind="Length", max=2), Rule(kind="JSON", keys=("a", "b"), weight=4)]
    judgement = judged(
        rules,
        response('{"a":1,"b":2}'),  # 3 + 1 + 4
        response('{"a": 1}'),  # 3 + 1 + 2
        response('{"a": 1, "b": 2}', finished=False),  # 0 + 0 + 4: four words
        response("one two three"),  # 3 + 0 + 0
        response("one two three four"),  # 3 + 0 + 0
    )
    assert judgement.scores_K is not None
    np.testing.assert_allclose(judgement.scores_K, [1, 6 / 8, 4 / 8, 3 / 8, 3 / 8])
    np.testing.assert_array_equal(judgement.passed_K, [True, False, False, False, False])
    half = 0.5
    np.testing.assert_array_equal(
        probabilities(judgement, "Probability"),
        [
            [half, 1, 1, 1, 1],
            [0, half, 1, 1, 1],
            [0, 0, half, 1, 1],
            [0, 0, 0, half, half],
            [0, 0, 0, half, half],
        ],
    )


def test_scores_that_differ_by_rounding_tie() -> None:
    """0.1 + 0.2 is not 0.3 in floats; the same rules by other ways must still tie."""
    rules = [
        Rule(kind="Regex", pattern=letter, weight=weight) for letter, weight in (("a", 0.1), ("b", 0.2), ("c", 0.3))
    ]
    judgement = judged(rules, response("ab"), response("c"))
    assert judgement.scores_K is not None
    assert judgement.values_KK[0, 1] == judgement.values_KK[1, 0] == 0.5


WRONG_RULES = [
    ("no pattern", {"kind": "Regex"}, "rules[1].pattern is missing"),
    ("broken pattern", {"kind": "Regex", "pattern": "(a"}, r"rules[1].pattern is '(a'"),
    ("broken extraction", {"kind": "Exact", "column": "a", "pattern": "["}, "rules[1].pattern is '['"),
    ("no column", {"kind": "Exact"}, "rules[1].column is missing"),
    ("no keys", {"kind": "JSON"}, "rules[1].keys is missing"),
    ("no bounds", {"kind": "Length"}, "rules[1] has neither min nor max"),
    ("bounds swapped", {"kind": "Length", "min": 3, "max": 2}, "rules[1].max is 2, below min 3"),
    ("useless field", {"kind": "Finished", "pattern": "x"}, "rules[1].pattern is set, but kind Finished"),
]


@pytest.mark.parametrize(("fields", "message"), [row[1:] for row in WRONG_RULES], ids=[row[0] for row in WRONG_RULES])
def test_wrong_rules_are_refused_at_once(fields: dict[str, Any], message: str) -> None:
    rules = (Rule(kind="Finished"), Rule(**fields))
    with pytest.raises(ConfigError) as caught:
        load_oracle(Preference(kind="Verifier", verifier=Verifier(rules=rules)))
    assert f"preference.verifier.{message}" in str(caught.value)


def test_no_rules() -> None:
    with pytest.raises(ConfigError, match=r"evaluation.preference.verifier.rules is empty"):
        VerifierOracle(Verifier(rules=()), field="evaluation.preference")


WRONG_ROWS = [
    ("column missing", Rule(kind="Exact", column="answer"), {"other": 1}, MissingError, "'answer'.*'other'"),
    ("placeholder missing", Rule(kind="Regex", pattern="{answer}"), {}, MissingError, r"rules\[0\].pattern.*'answer'"),
    ("empty cell", Rule(kind="Number", column="answer"), {"answer": None}, DataError, "'answer', which is empty"),
    ("cell without a number", Rule(kind="Number", column="answer"), {"answer": "Paris"}, DataError, "'Paris'"),
]


@pytest.mark.parametrize(
    ("rule", "columns", "error", "message"), [row[1:] for row in WRONG_ROWS], ids=[row[0] for row in WRONG_ROWS]
)
def test_wrong_rows(rule: Rule, columns: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        judged([rule], response("x"), columns=columns)


@pytest.mark.parametrize(
    "rule",
    [Rule(kind="Regex", pattern="^(a|aa)+$"), Rule(kind="Exact", column="answer", pattern="^(a|aa)+$")],
    ids=["Regex", "Exact"],
)
def test_a_pattern_that_never_ends_is_stopped(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier_module, "PATTERN_TIMEOUT_SECONDS", 0.02)
    with pytest.raises(ConfigError, match=r"rules\[0\].pattern .* took it longer than 0.02 s"):
        judged([rule], response("a" * 60 + "b"), columns={"answer": "x"})


def test_pairs() -> None:
    assert all_pairs(3) == ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1))
    assert cross_pairs(1, 2) == ((0, 1), (1, 0), (0, 2), (2, 0))


def test_pairs_that_were_not_asked_stay_nan() -> None:
    responses = (response("a"), response("b b"), response("c c c"))
    oracle = VerifierOracle(Verifier(rules=(Rule(kind="Length", max=2),)))
    (judgement,) = oracle.judge(
        [Comparison(messages=(), columns={}, responses=responses, pairs=cross_pairs(1, 2))],
    )
    nan = np.nan
    np.testing.assert_array_equal(judgement.values_KK, [[nan, 0.5, 1], [0.5, nan, nan], [0, nan, nan]])
    np.testing.assert_array_equal(
        probabilities(judgement, "Probability"), [[0.5, 0.5, 1], [0.5, 0.5, nan], [0, nan, 0.5]]
    )


TEXTS = st.text(alphabet='ab 1,.{}"`', max_size=12)
RULES = st.lists(
    st.one_of(
        st.just(Rule(kind="Finished")),
        st.builds(lambda low: Rule(kind="Length", min=low, weight=0.3), st.integers(0, 4)),
        st.builds(lambda letter: Rule(kind="Regex", pattern=letter, weight=0.7), st.sampled_from(["a", "b+", "1$"])),
        st.just(Rule(kind="Number", column="n", tolerance=1.0)),
        st.just(Rule(kind="JSON", keys=("a", "b"), weight=2.0)),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(RULES, st.lists(TEXTS, min_size=2, max_size=4), TEXTS)
def test_p_is_antisymmetric_and_independent_of_third_responses(rules: list[Rule], texts: list[str], third: str) -> None:
    few = probabilities(judged(rules, *map(response, texts), columns={"n": 1}), "Probability")
    many = probabilities(judged(rules, *map(response, [*texts, third]), columns={"n": 1}), "Probability")
    np.testing.assert_array_equal(few + few.T, np.ones_like(few))
    np.testing.assert_array_equal(many[: len(texts), : len(texts)], few)


@given(st.lists(st.floats(-50, 50), min_size=6, max_size=6), st.floats(0.1, 10))
def test_p_of_logits_is_antisymmetric(logits: list[float], temperature: float) -> None:
    values_KK = np.full((3, 3), np.nan)
    values_KK[~np.eye(3, dtype=bool)] = logits
    p_KK = probabilities(Judgement(values_KK=values_KK), "Logit", temperature)
    np.testing.assert_allclose(p_KK + p_KK.T, np.ones((3, 3)), atol=1e-15)
    swapped = probabilities(Judgement(values_KK=values_KK.T.copy()), "Logit", temperature)
    np.testing.assert_allclose(swapped, p_KK.T, atol=1e-15)
