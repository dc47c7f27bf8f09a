"""What a run's figures mean, in sentences: is the policy better, who disagrees, what to look at, why it stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sppo_operator.decide import Stage, Step
from sppo_operator.facts import Record, Records, WinRate, best_iteration, win_rate

LONGER, SHORTER = 1.3, 0.6
"""Mean length against the base's beyond which it is worth a sentence."""
CUT_SHARE = 0.1
DISTINCT_SHARE = 0.5
HELPLESS = {"UserFault", "RetriesExhausted", "Refused", "Blocked", "PodsStuck", "Stopped"}


class Tone(StrEnum):
    """Names of the style sheet's classes."""

    GOOD = "good"
    BAD = "bad"
    UNSURE = "unsure"


@dataclass(frozen=True, kw_only=True)
class Remark:
    tone: Tone
    title: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    tone: Tone
    claim: str
    evidence: str
    """Ends the sentence that the claim begins."""
    remarks: tuple[Remark, ...] = ()
    """The gravest first."""


def verdict(resource: Mapping[str, Any], records: Records) -> Verdict:
    remarks = (*_state(resource.get("status", {})), *_figures(records))
    return replace(_headline(records), remarks=tuple(sorted(remarks, key=lambda remark: remark.tone is not Tone.BAD)))


def percent(value: float) -> str:
    return f"{_hundredths(value)}\N{NO-BREAK SPACE}%"


def interval(rate: WinRate) -> str:
    return f"95\N{NO-BREAK SPACE}% interval {_hundredths(rate.low)} to {percent(rate.high)}"


def _hundredths(value: float) -> str:
    """Rounded as WinRate shows it: 0.925 is 0.93 there, and 92.5 would be 92."""
    return f"{100 * float(f'{value:.2f}') + 0.0:.6g}"  # no sign before a zero


def _headline(records: Records) -> Verdict:
    number, opponent, rate = _measured(records)
    if rate is None:
        return Verdict(tone=Tone.UNSURE, claim="No trained policy has been evaluated yet", evidence="")
    prompts = records.get(Step(0, Stage.PREPARE), Record()).number("heldOut")
    where = f" on {prompts:.0f} held-out prompts" if prompts else " on held-out prompts"
    wins = f"it wins {percent(rate.value)} of its comparisons{where} ({interval(rate)})"
    if rate.high < 0.5:
        return Verdict(tone=Tone.BAD, claim=f"Iteration {number} is worse than {opponent}", evidence=wins)
    if rate.low <= 0.5:
        claim = f"Iteration {number} cannot be told from {opponent}"
        return Verdict(tone=Tone.UNSURE, claim=claim, evidence=f"{wins}, and one half would be no difference")
    claim = f"Iteration {number} is better than {opponent}"
    second = win_rate(records, number, "secondWinRateBase")
    if second and second.low <= 0.5:
        return Verdict(tone=Tone.UNSURE, claim=f"{claim}, says the oracle of its training alone", evidence=wins)
    return Verdict(tone=Tone.GOOD, claim=claim, evidence=wins)


def _measured(records: Records) -> tuple[int, str, WinRate | None]:
    """The best iteration against the base; where the base is no opponent, the newest against the one before."""
    best = best_iteration(records)
    if best is not None:
        return best, "the base model", win_rate(records, best)
    newest = max(
        (step.iteration for step in records if win_rate(records, step.iteration, "winRatePrevious")), default=0
    )
    return newest, f"iteration {newest - 1}", win_rate(records, newest, "winRatePrevious") if newest else None


def _state(status: Mapping[str, Any]) -> Iterator[Remark]:
    """What the conditions say that somebody has to know."""
    found = {condition["type"]: condition for condition in status.get("conditions", ())}
    progressing = found.get("Progressing", {"status": "Unknown"})
    if found.get("Succeeded", {}).get("status") == "False":
        # The message of Progressing says how to go on, and repeats why.
        yield Remark(
            tone=Tone.BAD, title=f"Failed ({found['Succeeded']['reason']})", sentence=progressing.get("message", "")
        )
    elif progressing["status"] == "False" and progressing["reason"] != "Finished":
        tone = Tone.BAD if progressing["reason"] in HELPLESS else Tone.UNSURE
        yield Remark(tone=tone, title=f"Standing still ({progressing['reason']})", sentence=progressing["message"])
    elif progressing["status"] == "True":
        yield Remark(tone=Tone.UNSURE, title="Still going", sentence=progressing["message"])
    if found.get("Degraded", {}).get("status") == "True":
        yield Remark(
            tone=Tone.BAD, title=f"Degraded ({found['Degraded']['reason']})", sentence=found["Degraded"]["message"]
        )


def _figures(records: Records) -> Iterator[Remark]:
    best = best_iteration(records)
    if best is None:
        return
    yield from _second_oracle(records, best)
    yield from _past_its_best(records, best)
    yield from _lengths(records, best)
    yield from _sameness(records, best)


def _second_oracle(records: Records, best: int) -> Iterator[Remark]:
    """Training optimizes one oracle; what another one does not see may be the first one's weakness."""
    first, second = win_rate(records, best), win_rate(records, best, "secondWinRateBase")
    if first is None or second is None:
        return
    gap, gaps = first.value - second.value, _gaps(records)
    history = f" By iteration the gap was {gaps} points." if "," in gaps else ""
    numbers = f"{percent(second.value)} ({interval(second)}) where the oracle of training says {percent(first.value)}"
    if first.low > 0.5 >= second.low:
        yield Remark(
            tone=Tone.BAD,
            title="The second oracle disagrees",
            sentence=f"It says {numbers}, a gap of {100 * gap:.0f} points: the policy may have learned the weaknesses "
            f"of its oracle (reward hacking).{history} Read the answers below, and prefer an iteration on which both "
            "agree.",
        )
    elif second.high < first.low:
        yield Remark(
            tone=Tone.UNSURE,
            title="The second oracle sees less",
            sentence=f"It says {numbers}: a part of the gain, {100 * gap:.0f} points, is seen by the oracle of "
            f"training alone.{history} A gap that grows is the sign of reward hacking.",
        )
    else:
        yield Remark(tone=Tone.GOOD, title="The second oracle agrees", sentence=f"It says {numbers}.")


def _gaps(records: Records) -> str:
    """By how many points the two oracles differ, for every iteration that both have judged."""
    numbers = sorted({step.iteration for step in records if step.iteration > 0})
    pairs = [(win_rate(records, number), win_rate(records, number, "secondWinRateBase")) for number in numbers]
    return ", ".join(f"{100 * (first.value - second.value):.0f}" for first, second in pairs if first and second)


def _past_its_best(records: Records, best: int) -> Iterator[Remark]:
    newest = max(step.iteration for step in records if win_rate(records, step.iteration))
    top, now = win_rate(records, best), win_rate(records, newest)
    if top is None or now is None or newest == best:
        return
    surely = now.high < top.low
    yield Remark(
        tone=Tone.BAD if surely else Tone.UNSURE,
        title="Past its best",
        sentence=f"Iteration {newest} wins {percent(now.value)} ({interval(now)}), less than iteration {best}"
        + (": take the policy of the best iteration." if surely else ", though the intervals overlap."),
    )


def _lengths(records: Records, best: int) -> Iterator[Remark]:
    before, after = (_evaluated(records, number).number("meanTokens") for number in (0, best))
    cut = _evaluated(records, best).number("cutShare")
    if before and after and not SHORTER <= after / before <= LONGER:
        way = "longer" if after > before else "shorter"
        yield Remark(
            tone=Tone.UNSURE,
            title=f"Answers became {way}",
            sentence=f"From {before:.3g} to {after:.3g} tokens on average: check that the length is not what wins.",
        )
    if cut is not None and cut > CUT_SHARE:
        yield Remark(
            tone=Tone.UNSURE,
            title="Answers were cut",
            sentence=f"{percent(cut)} of the answers of iteration {best} ended at generation.maxTokens: raise it in "
            "a new run unless answers are meant to be that short.",
        )


def _sameness(records: Records, best: int) -> Iterator[Remark]:
    share = _evaluated(records, best).number("distinctShare")
    if share is not None and share < DISTINCT_SHARE:
        yield Remark(
            tone=Tone.BAD,
            title="Answers are alike",
            sentence=f"Only {percent(share)} of the answers of iteration {best} are different texts: the policy is "
            "near a collapse; use a larger objective.beta or fewer iterations.",
        )


def _evaluated(records: Records, number: int) -> Record:
    return records.get(Step(number, Stage.EVALUATE), Record())
