"""The Verifier oracle: weighted rules that check a response by itself or against the prompt's row.

A rule scores 0..1 and passes at 1. A response's score is the weighted mean over the rules, and P compares scores:
1, 1/2, 0. So P of two responses depends on no third one.

Shapes: R rules, K responses of one prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import regex

from sppo_trainer.config import Rule, Verifier
from sppo_trainer.errors import ConfigError, DataError, MissingError
from sppo_trainer.oracle import Comparison, Judgement, Response, Scale, pair_table

Columns = Mapping[str, Any]
Check = Callable[[Response, Columns], float]

SCORE_TOLERANCE = 1e-9
"""Scores closer than this tie: weighted means of equal rules may differ in the last bits."""
PATTERN_TIMEOUT_SECONDS = 1.0

FIELDS = {
    "Finished": (),
    "Length": ("unit", "min", "max"),
    "Regex": ("pattern",),
    "Exact": ("column", "pattern"),
    "Number": ("column", "pattern", "tolerance"),
    "JSON": ("keys",),
}
REQUIRED = {"Regex": "pattern", "Exact": "column", "Number": "column", "JSON": "keys"}

# An escape, \p{…} included, or {column}; quantifiers such as {2} and {1,3} are no identifiers.
PLACEHOLDER = re.compile(r"\\(?:[pP]\{[^}]*\}|N\{[^}]*\}|.)|\{(?P<column>[^\W\d]\w*)\}", re.DOTALL)
# Exponents are bounded: 1e999999999 as an exact number would fill the memory.
NUMBER = re.compile(
    r"""
    (?<![^\W_]) (?<!\.)                     # not inside a word or a version: x2, 1.2.3
    [-+\u2212]?
    (?: \d{1,3} (?:,\d{3})+ (?!\d) (?:\.\d+)?   # 1,234.5
      | \d+ (?:\.\d+)?
      | \.\d+ )
    (?: [eE] [-+]? \d{1,3} (?!\d) )?
    """,
    re.VERBOSE,
)
FENCED_BLOCK = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)


class VerifierOracle:
    """Raises ConfigError for a rule that cannot work; MissingError or DataError when a row lacks what a rule needs."""

    scale: Scale = "Probability"

    def __init__(self, verifier: Verifier, *, field: str = "preference") -> None:
        if not verifier.rules:
            raise ConfigError(f"{field}.verifier.rules is empty: give at least one rule")
        self._checks = [
            compile_rule(rule, f"{field}.verifier.rules[{index}]") for index, rule in enumerate(verifier.rules)
        ]
        self._weights_R = np.array([rule.weight for rule in verifier.rules])

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        return [self._judge(comparison) for comparison in comparisons]

    def _judge(self, comparison: Comparison) -> Judgement:
        scores_RK = np.array(
            [[check(response, comparison.columns) for response in comparison.responses] for check in self._checks]
        )
        scores_K = self._weights_R @ scores_RK / self._weights_R.sum()
        return Judgement(
            values_KK=pair_table(comparison, [compare(scores_K[i], scores_K[j]) for i, j in comparison.pairs]),
            scores_K=scores_K,
            passed_K=(scores_RK == 1).all(axis=0),
        )


def compare(score: float, other: float) -> float:
    """1 if `score` is higher, 0 if it is lower, 1/2 at a tie."""
    return 0.5 if abs(score - other) <= SCORE_TOLERANCE else float(score > other)


def compile_rule(rule: Rule, path: str) -> Check:
    """The rule as a function of a response and its prompt's row; `path` is the rule's place, for messages."""
    _check_fields(rule, path)
    match rule.kind:
        case "Finished":
            return lambda response, _: float(response.finished)
        case "Length":
            return _length(rule, path)
        case "Regex":
            return _regex(rule, path)
        case "Exact":
            return _exact(rule, path)
        case "Number":
            return _number(rule, path)
        case "JSON":
            return lambda response, _: json_key_share(response.text, rule.keys)


def _check_fields(rule: Rule, path: str) -> None:
    for item in fields(rule):
        is_set = getattr(rule, item.name) != item.default
        if is_set and item.name not in ("kind", "weight", *FIELDS[rule.kind]):
            raise ConfigError(f"{path}.{item.name} is set, but kind {rule.kind} has no use for it: remove it")
    required = REQUIRED.get(rule.kind)
    if required and not getattr(rule, required):
        raise ConfigError(f"{path}.{required} is missing: kind {rule.kind} needs it")


def _length(rule: Rule, path: str) -> Check:
    if rule.min is None and rule.max is None:
        raise ConfigError(f"{path} has neither min nor max: kind Length needs one of them")
    low = 0 if rule.min is None else rule.min
    if rule.max is not None and rule.max < low:
        raise ConfigError(f"{path}.max is {rule.max}, below min {low}: raise max or lower min")

    def check(response: Response, _: Columns) -> float:
        match rule.unit:
            case "Words":
                length = len(response.text.split())
            case "Characters":
                length = len(response.text)
            case "Tokens":
                length = response.token_count
        return float(low <= length and (rule.max is None or length <= rule.max))

    return check


def _regex(rule: Rule, path: str) -> Check:
    source = rule.pattern or ""
    _compile(_filled(source, lambda _: "x"), path)

    def check(response: Response, columns: Columns) -> float:
        pattern = _compile(_filled(source, lambda column: str(_cell(columns, column, f"{path}.pattern"))), path)
        try:
            return float(pattern.search(response.text, timeout=PATTERN_TIMEOUT_SECONDS) is not None)
        except TimeoutError as error:
            raise _too_slow(pattern, path) from error

    return check


def _exact(rule: Rule, path: str) -> Check:
    answer, column = _extractor(rule, path), rule.column or ""

    def check(response: Response, columns: Columns) -> float:
        expected = str(_cell(columns, column, f"{path}.column"))
        found = answer(response.text)
        return float(found is not None and found.strip() == expected.strip())

    return check


def _number(rule: Rule, path: str) -> Check:
    answer, column = _extractor(rule, path), rule.column or ""
    tolerance = Fraction(Decimal(repr(rule.tolerance)))

    def check(response: Response, columns: Columns) -> float:
        cell = _cell(columns, column, f"{path}.column")
        expected = last_number(str(cell))
        if expected is None:
            raise DataError(f"{path}.column is {column!r}, whose value {cell!r} has no number: use kind Exact")
        found = last_number(answer(response.text) or "")
        return float(found is not None and abs(found - expected) <= tolerance)

    return check


def last_number(text: str) -> Fraction | None:
    """The last decimal number in the text, exactly; signs, 1,234 and 1e3 are understood, a % or $ is not looked at."""
    matches = NUMBER.findall(text)
    return Fraction(Decimal(matches[-1].replace(",", "").replace("\u2212", "-"))) if matches else None


def json_key_share(text: str, keys: Sequence[str]) -> float:
    """The share of `keys` that the text's JSON object has: the whole text, or its first fenced block that is one."""
    for candidate in (text, *FENCED_BLOCK.findall(text)):
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):  # a model may well write 10 000 opening brackets
            continue
        if isinstance(value, dict):
            return sum(key in value for key in keys) / len(keys)
    return 0.0


def _extractor(rule: Rule, path: str) -> Callable[[str], str | None]:
    """Where a response states its answer: the last match of the pattern (its first group, if any), or all of it."""
    if rule.pattern is None:
        return lambda text: text
    pattern = _compile(rule.pattern, path)

    def extract(text: str) -> str | None:
        try:
            matches = list(pattern.finditer(text, timeout=PATTERN_TIMEOUT_SECONDS))
        except TimeoutError as error:
            raise _too_slow(pattern, path) from error
        return matches[-1][min(1, pattern.groups)] if matches else None

    return extract


def _filled(source: str, value: Callable[[str], str]) -> str:
    """The pattern with each {column} replaced by the escaped value of that column."""

    def replacement(match: re.Match[str]) -> str:
        column = match["column"]
        return match[0] if column is None else regex.escape(value(column))

    return PLACEHOLDER.sub(replacement, source)


def _compile(source: str, path: str) -> regex.Pattern[str]:
    try:
        return regex.compile(source)
    except regex.error as error:
        raise ConfigError(f"{path}.pattern is {source!r}: it is no regular expression ({error}); correct it") from error


def _too_slow(pattern: regex.Pattern[str], path: str) -> ConfigError:
    return ConfigError(
        f"{path}.pattern is {pattern.pattern!r}: a response took it longer than {PATTERN_TIMEOUT_SECONDS:g} s; "
        "avoid nested repetition such as (a+)+"
    )


def _cell(columns: Columns, column: str, path: str) -> Any:
    if column not in columns:
        has = ", ".join(map(repr, sorted(columns))) or "none"
        raise MissingError(
            f"{path} names column {column!r}, which a row of the prompts lacks (it has {has}): correct it"
        )
    if columns[column] is None:
        raise DataError(f"{path} names column {column!r}, which is empty in a row of the prompts: fill it in")
    return columns[column]
