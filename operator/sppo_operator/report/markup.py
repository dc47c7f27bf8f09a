"""Pieces of HTML. Whatever comes from a model, a user or a cluster goes through `text`, and through nothing else."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from html import escape

REPLACED = {"Cc", "Cs"}
"""Categories of Unicode: controls, and surrogates, which no file can hold."""


def text(value: object) -> str:
    """As text of a page or value of an attribute; what cannot be shown is replaced."""
    shown = "".join(
        "�" if unicodedata.category(character) in REPLACED and character not in "\n\t" else character
        for character in str(value)
    )
    return escape(shown)


def table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str, total: bool = False, wordy: bool = False
) -> str:
    """A table that scrolls in itself where the page is narrow; empty without rows.

    `total` sets the last row apart, `wordy` breaks the lines of the last column.
    """
    lines = list(rows)
    if not lines:
        return ""
    head = "".join(f'<th scope="col">{text(title)}</th>' for title in titles)
    body = [_row(row) for row in lines]
    foot = f"<tfoot>{body.pop()}</tfoot>" if total else ""
    kind = ' class="wordy"' if wordy else ""
    return (
        f'<figure class="table"><figcaption>{text(caption)}</figcaption><div class="scroll" role="region" '
        f'aria-label="{text(caption)}" tabindex="0"><table{kind}><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody>{foot}</table></div></figure>"
    )


def _row(cells: Sequence[str]) -> str:
    first, *others = cells
    return f'<tr><th scope="row">{text(first)}</th>{"".join(f"<td>{text(cell)}</td>" for cell in others)}</tr>'


def section(identifier: str, title: str, *parts: str) -> str:
    """Empty if all its parts are."""
    body = "".join(parts)
    return f'<section id="{identifier}"><h2>{text(title)}</h2>{body}</section>' if body else ""


def paragraph(sentence: str, kind: str = "note") -> str:
    return f'<p class="{kind}">{text(sentence)}</p>' if sentence else ""


def folded(title: str, *parts: str) -> str:
    """Parts that are shown when the title is chosen, and in print."""
    body = "".join(parts)
    return f"<details><summary>{text(title)}</summary>{body}</details>" if body else ""


def copyable(content: str, caption: str) -> str:
    """Text to copy: one click selects all of it."""
    return f'<pre role="region" aria-label="{text(caption)}" tabindex="0"><code>{text(content)}</code></pre>'
