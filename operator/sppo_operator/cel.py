"""CEL expressions, by the CEL project's own C++ runtime."""

from __future__ import annotations

import functools
from typing import Any

from cel_expr_python import cel


class CELError(Exception):
    """An expression that has no value for the given variables."""


@functools.cache
def _compiled(expression: str) -> cel.Expression:
    return _environment().compile(expression)


@functools.cache
def _environment() -> cel.Env:
    names = ("self", "oldSelf", "pattern")
    return cel.NewEnv(variables=dict.fromkeys(names, cel.Type.DYN))


def holds(expression: str, variables: dict[str, Any]) -> bool:
    """Whether the expression is true; raises CELError if it cannot be evaluated."""
    value = _compiled(expression).eval(data=variables)
    if value.type() == cel.Type.ERROR:
        raise CELError(str(value.value()))
    return value.value() is True


def matches(text: str, pattern: str) -> bool:
    """Whether the RE2 pattern is found in the text."""
    return holds("self.matches(pattern)", {"self": text, "pattern": pattern})
