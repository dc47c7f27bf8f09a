"""Held-out answers before and after: the best improvements, typical ones and the worst regressions."""

from __future__ import annotations

from collections.abc import Sequence

from sppo_operator.report.markup import folded, paragraph, text
from sppo_operator.results import Sample, by_win_rate, win_rate_of
from sppo_operator.summary import shortened

SHOWN = 4
"""Of each kind; the others follow folded."""


def answers(samples: Sequence[Sample], *, before: str, after: str, held_out: float | None) -> str:
    """The section's body; `before` and `after` name the policies. Empty without samples."""
    ranked = by_win_rate(samples)
    if not ranked:
        return ""
    groups = _groups(ranked)
    shown = {id(sample) for group in groups.values() for sample in group}
    total = round(held_out) if held_out else len(ranked)
    cards = {title: "".join(_card(sample, before, after, total) for sample in group) for title, group in groups.items()}
    others = "".join(_card(sample, before, after, total) for sample in ranked if id(sample) not in shown)
    return (
        paragraph(_how(ranked, total))
        + "".join(f"<h3>{text(title)}</h3>{body}" for title, body in cards.items() if body)
        + folded(f"The other {len(ranked) - len(shown)} that the evaluation kept", others)
    )


def _groups(ranked: Sequence[Sample]) -> dict[str, Sequence[Sample]]:
    """Of few samples, the best and the worst come first; no sample is in two groups."""
    best = [sample for sample in ranked[:SHOWN] if win_rate_of(sample) > 0.5]
    worst = [sample for sample in ranked[len(best) :][-SHOWN:] if win_rate_of(sample) < 0.5]
    rest = ranked[len(best) : len(ranked) - len(worst)]
    middle = max(0, (len(rest) - SHOWN) // 2)
    return {
        "Best improvements": best,
        "Typical": rest[middle : middle + SHOWN],
        "Worst regressions": list(reversed(worst)),
    }


def _how(ranked: Sequence[Sample], total: int) -> str:
    if all("rank" in sample for sample in ranked):
        kept = (
            f"of all {total} held-out prompts the evaluation kept {len(ranked)}: those that were won most, those that "
            "were lost most, and those around the median"
            if len(ranked) < total
            else f"all {total} held-out prompts are here"
        )
    else:
        kept = f"the evaluation kept the first {len(ranked)} of {total} held-out prompts, in no order"
    return (
        f"Chosen by the win rate of each prompt, over all pairs of answers: {kept}. Shown is the first answer that "
        "each policy gave, not its best."
    )


def _card(sample: Sample, before: str, after: str, total: int) -> str:
    facts = []
    if sample.get("winRate") is not None:
        facts.append(f"win rate {sample['winRate']:.2f}")
    if sample.get("rank"):
        facts.append(f"rank {sample['rank']} of {total}")
    return (
        f'<article><h4 dir="auto" tabindex="0">{text(shortened(sample["prompt"]))}</h4>'
        f'<p class="facts">{text(", ".join(facts))}</p><div class="answers">'
        f"{_answer(before, sample['before'], sample.get('scoreBefore'))}"
        f"{_answer(after, sample['after'], sample.get('scoreAfter'))}</div></article>"
    )


def _answer(policy: str, answer: str, score: float | None) -> str:
    shown = "" if score is None else f" <b>score {score:.2f}</b>"
    said = f'<blockquote dir="auto" tabindex="0">{text(shortened(answer))}</blockquote>'
    empty = '<p class="empty">(an empty answer)</p>'
    return f'<div class="answer"><p class="facts">{text(policy)}{shown}</p>{said if answer.strip() else empty}</div>'
