"""The report of a run: one HTML file with its curves, answers, configuration and digests, readable anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml

from sppo_operator import __version__
from sppo_operator.charts import Series, line_chart
from sppo_operator.decide import Stage, Step
from sppo_operator.facts import Record, Records, best_iteration, in_order, win_rate
from sppo_operator.report_style import STYLE
from sppo_operator.results import Results
from sppo_operator.status import records_of
from sppo_operator.store import replace_file
from sppo_operator.tables import figure, seconds

SHOWN_SAMPLES = 12
WIN_RATE_CURVES = {
    "winRateBase": "against the base",
    "winRatePrevious": "against the previous policy",
    "secondWinRateBase": "against the base, second oracle",
}


def write_report(path: Path, resource: Mapping[str, Any], results: Results) -> None:
    replace_file(path, report(resource, results))


def report(resource: Mapping[str, Any], results: Results) -> str:
    """The whole page; sections without data are left out."""
    records = records_of(resource)
    numbers = sorted({step.iteration for step in records})
    name = f"{resource['metadata'].get('namespace', 'default')}/{resource['metadata']['name']}"
    sections = [
        _headline(resource, records),
        _section("Held-out results", _results_table(records, numbers), _win_rate_chart(records, numbers)),
        _section("Training", *_training_charts(results, numbers)),
        _section("Lengths", _lengths_chart(records, numbers)),
        _section("Seconds per stage", _seconds_table(records, numbers)),
        _section("Answers before and after", _samples(records, results)),
        _section("Configuration", _configuration(resource)),
        _section("Digests and versions", _digests_table(records), _versions(resource, results)),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}</title><style>{STYLE}</style></head><body><main><h1>{escape(name)}</h1>"
        f"{''.join(sections)}</main></body></html>\n"
    )


def _headline(resource: Mapping[str, Any], records: Records) -> str:
    status = resource.get("status", {})
    best = best_iteration(records)
    rate = win_rate(records, best) if best is not None else None
    figures = (
        f"Iteration {best} wins <b>{rate}</b> of its comparisons with the base model" if rate else "Not evaluated yet"
    )
    degraded = [
        condition["message"]
        for condition in status.get("conditions", ())
        if (condition["type"], condition["status"]) in {("Degraded", "True"), ("Succeeded", "False")}
    ]
    warnings = "".join(f'<p class="warning">{escape(message)}</p>' for message in degraded)
    return f'<p class="headline">{figures} <small>({escape(status.get("phase", ""))})</small></p>{warnings}'


def _results_table(records: Records, numbers: Sequence[int]) -> str:
    titles = ("iteration", "win rate vs base", "vs previous", "pass rate", "tokens", "distinct", "KL", "loss/η²")
    rows = []
    for number in numbers:
        evaluated = records.get(Step(number, Stage.EVALUATE), Record())
        trained = records.get(Step(number, Stage.TRAIN), Record())
        metrics = ("passRate", "meanTokens", "distinctShare", "klPerResponse")
        rows.append(
            (
                "base" if number == 0 else str(number),
                str(win_rate(records, number) or ""),
                str(win_rate(records, number, "winRatePrevious") or "") if number > 1 else "",
                *(figure(evaluated.number(metric)) for metric in metrics),
                figure(trained.number("lossOverEta2")),
            )
        )
    return _table(titles, rows)


def _win_rate_chart(records: Records, numbers: Sequence[int]) -> str:
    series = []
    for metric, name in WIN_RATE_CURVES.items():
        rates = [(number, rate) for number in numbers if (rate := win_rate(records, number, metric))]
        if not rates:
            continue
        series.append(
            Series(
                name=name,
                points=[(number, rate.value) for number, rate in rates],
                intervals=[(rate.low, rate.high) for _, rate in rates],
            )
        )
    return line_chart("Win rate with 95 % interval", "iteration", series, reference=0.5)


def _training_charts(results: Results, numbers: Sequence[int]) -> list[str]:
    curves = [results.curves(number) for number in numbers if number > 0]
    return [
        line_chart(title, "step, all iterations in a row", _in_a_row(curves, names), reference=reference)
        for title, names, reference in (
            ("Loss / η²", {"lossOverEta2": "loss"}, None),
            ("Mean log-ratio to the previous policy, nats", {"logRatioBest": "best", "logRatioWorst": "worst"}, 0.0),
            ("Gradient norm before clipping", {"gradNorm": "norm"}, None),
            ("Learning rate", {"learningRate": "rate"}, None),
        )
    ]


def _in_a_row(curves: Sequence[Mapping[str, Sequence[float | None]]], names: Mapping[str, str]) -> list[Series]:
    """One series per curve and iteration; an iteration's steps follow those of the one before."""
    series, first = [], 1
    for curve in curves:
        for key, name in names.items():
            points = [(step, value) for step, value in enumerate(curve.get(key, ()), first) if value is not None]
            series.append(Series(name=name, points=points))
        first += max(map(len, curve.values()), default=0)
    return series


def _lengths_chart(records: Records, numbers: Sequence[int]) -> str:
    series = []
    for stage, name in ((Stage.GENERATE, "training samples"), (Stage.EVALUATE, "held-out answers")):
        points = [
            (float(number), tokens)
            for number in numbers
            if (tokens := records.get(Step(number, stage), Record()).number("meanTokens")) is not None
        ]
        series.append(Series(name=name, points=points))
    return line_chart("Mean tokens per response", "iteration", series)


def _seconds_table(records: Records, numbers: Sequence[int]) -> str:
    rows = [(str(number), *(seconds(records.get(Step(number, stage))) for stage in Stage)) for number in numbers]
    return _table(("iteration", *(stage.value for stage in Stage)), rows)


def _samples(records: Records, results: Results) -> str:
    best = best_iteration(records)
    rows = results.samples(best)[:SHOWN_SAMPLES] if best is not None else []
    parts = []
    for row in rows:
        before, after = (
            f"<p><small>{when}{_score(row.get(score))}</small><br>{escape(row[text])}</p>"
            for when, score, text in (("before", "scoreBefore", "before"), ("after", "scoreAfter", "after"))
        )
        parts.append(f'<article><h3>{escape(row["prompt"])}</h3><div class="answers">{before}{after}</div></article>')
    return "".join(parts)


def _score(score: float | None) -> str:
    return "" if score is None else f", score {score:.2f}"


def _configuration(resource: Mapping[str, Any]) -> str:
    return f"<pre>{escape(yaml.safe_dump(dict(resource['spec']), sort_keys=False, allow_unicode=True))}</pre>"


def _digests_table(records: Records) -> str:
    digests = {step: records[step].content_digest for step in in_order(records)}
    rows = [(str(step), digest) for step, digest in digests.items() if digest]
    return _table(("stage", "content digest"), rows)


def _versions(resource: Mapping[str, Any], results: Results) -> str:
    facts = {"run digest": resource.get("status", {}).get("digest", ""), "sppo-operator": __version__}
    facts |= {
        f"trainer: {key}": str(value) for key, value in results.versions().items() if key not in ("started", "seconds")
    }
    return _table(("version", ""), facts.items())


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>' if body else ""
    )


def _section(title: str, *parts: str) -> str:
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""
