"""The report's charts and tables of what the policies became, and of how training went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sppo_operator.decide import Stage, Step
from sppo_operator.facts import Record, Records, win_rate
from sppo_operator.report.charts import Series, line_chart
from sppo_operator.report.markup import table, text
from sppo_operator.report.verdict import percent
from sppo_operator.results import Curves
from sppo_operator.summary import figure

Lines = Mapping[str, tuple[Stage, str]]
"""Names of curves over iterations, and where their points are."""

WIN_RATES = {
    "winRateBase": "against the base",
    "winRatePrevious": "against the previous",
    "secondWinRateBase": "against the base, second oracle",
}
STEP_CHARTS: Mapping[str, Mapping[str, str]] = {
    "Loss / η²": {"lossOverEta2": "loss"},
    "Log-ratio before each update, nats": {"logRatioBest": "best", "logRatioWorst": "worst"},
    "Gradient norm before clipping": {"gradNorm": "norm"},
    "Learning rate": {"learningRate": "rate"},
}
LAST_STEP = 2.0**40
SHARE = (0.0, 1.0)
"""What a chart of shares covers: a hundredth must not look like much."""
BOTH = {"held-out answers": Stage.EVALUATE, "training samples": Stage.GENERATE}
GRADED = {"held-out answers": Stage.EVALUATE, "training samples": Stage.SCORE}
QUALITY_CHARTS: Mapping[str, Lines] = {
    "Pass rate": {name: (stage, "passRate") for name, stage in GRADED.items()},
    "Mean score": {name: (stage, "meanScore") for name, stage in GRADED.items()},
}
HEALTH_CHARTS: Mapping[str, Lines] = {
    "KL from the base, nats per response": {"held-out answers": (Stage.EVALUATE, "klPerResponse")},
    "Mean tokens per response": {name: (stage, "meanTokens") for name, stage in BOTH.items()},
    "Share cut at maxTokens": {name: (stage, "cutShare") for name, stage in BOTH.items()},
    "Share of distinct texts": {name: (stage, "distinctShare") for name, stage in BOTH.items()},
}
RESULTS_READ = (
    "The win rate is the mean probability that the oracle prefers an answer of the iteration over one of its opponent, "
    "over all pairs; ties count one half, so 0.5 is no difference. Intervals are bootstrapped over the prompts."
)
TRAINING_READ = (
    "Loss / η² is the squared distance from the target in units of the win rate. The log-ratio is log π(y|x) minus "
    "that of the policy before, summed over a response. The chart has it for the answers of each step, before the step "
    "learns from them: in the first epoch, what earlier steps did to answers that they have not seen. Both may fall "
    "there; best should stay above worst. The table has it after the last step, for at most 64 prompts of the "
    "training: best should be above 0 and worst below; where both are below 0 and fall from iteration to iteration, "
    "training only lowers likelihoods. Attained is that log-ratio over its target: more than 100 % is past the target."
)
HEALTH_READ = (
    "KL says how far the policy has moved from the base. A length that runs away, responses that are cut, and texts "
    "that repeat each other are the usual signs that a policy pleases its oracle and nobody else. Training samples of "
    "an iteration come from the policy before it."
)
TRAINING_FIGURES = {
    "lossOverEta2": "loss/η²",
    "logRatioBest": "log-ratio best",
    "logRatioWorst": "worst",
    "attainedBest": "attained best",
    "attainedWorst": "worst",
    "weightsChanged": "weights changed",
    "tiedPrompts": "ties",
    "steps": "steps",
}


def results(records: Records, numbers: Sequence[int]) -> str:
    charts = [_win_rate_chart(records, numbers)]
    charts += [_by_iteration(records, numbers, title, lines) for title, lines in QUALITY_CHARTS.items()]
    return _grid([*charts, _results_table(records, numbers)], RESULTS_READ) if any(charts) else ""


def training(records: Records, curves: Mapping[int, Curves]) -> str:
    """`curves` by iteration, in their order."""
    marks: dict[float, str] = {}
    for before, number, _ in _one_after_the_other(curves):
        marks[before + 1] = str(number) if marks else f"iteration {number}"
    charts = [
        line_chart(title, "optimizer step", _in_a_row(curves, names), cover=(0.0,), marks=marks)
        for title, names in STEP_CHARTS.items()
    ]
    return _grid([*charts, _training_table(records)], TRAINING_READ)


def health(records: Records, numbers: Sequence[int]) -> str:
    return _grid([_by_iteration(records, numbers, title, lines) for title, lines in HEALTH_CHARTS.items()], HEALTH_READ)


def _grid(parts: Sequence[str], how_to_read: str) -> str:
    shown = "".join(parts)
    return f'<div class="charts">{shown}<p class="note">{text(how_to_read)}</p></div>' if shown else ""


def _win_rate_chart(records: Records, numbers: Sequence[int]) -> str:
    series = []
    for metric, name in WIN_RATES.items():
        # What came before iteration 1 is the base, and the base against itself is no measurement of two oracles.
        least = {"winRatePrevious": 2, "secondWinRateBase": 1}.get(metric, 0)
        rates = [
            (number, rate) for number in numbers if number >= least and (rate := win_rate(records, number, metric))
        ]
        series.append(
            Series(
                name=name,
                points=[(number, rate.value) for number, rate in rates],
                intervals=[(rate.low, rate.high) for _, rate in rates],
            )
        )
    return line_chart("Win rate with 95 % interval", "iteration", series, reference=0.5)


def _by_iteration(records: Records, numbers: Sequence[int], title: str, lines: Lines) -> str:
    series = [
        Series(
            name=name,
            points=[
                (float(number), value)
                for number in numbers
                if (value := records.get(Step(number, stage), Record()).number(metric)) is not None
            ],
        )
        for name, (stage, metric) in lines.items()
    ]
    return line_chart(title, "iteration", series, cover=SHARE if title.startswith("Share") else (0.0,))


def _in_a_row(curves: Mapping[int, Curves], names: Mapping[str, str]) -> list[Series]:
    """One series per curve and iteration; an iteration's steps follow those of the one before."""
    series = []
    for before, number, steps in _one_after_the_other(curves):
        for key, name in names.items():
            values = zip(steps, curves[number].get(key, ()), strict=False)
            points = [(before + step, value) for step, value in values if value is not None]
            series.append(Series(name=name, points=points))
    return series


def _one_after_the_other(curves: Mapping[int, Curves]) -> Iterator[tuple[float, int, Sequence[float]]]:
    """How many steps came before, the iteration, and its own steps."""
    before = 0.0
    for number, of_iteration in curves.items():
        steps = _steps(of_iteration)
        yield before, number, steps
        before += max(steps, default=0.0)


def _steps(curves: Curves) -> Sequence[float]:
    """Thinned curves lack some. Points are counted where a user's image names no steps, or impossible ones."""
    points = max(map(len, curves.values()), default=0)
    named = [step for step in curves.get("step", ()) if step is not None and 1 <= step <= LAST_STEP]
    return named if len(named) == points else [float(step) for step in range(1, points + 1)]


def _results_table(records: Records, numbers: Sequence[int]) -> str:
    rates = {
        "win rate vs base": {number: win_rate(records, number) for number in numbers},
        "vs previous": {number: win_rate(records, number, "winRatePrevious") for number in numbers if number > 1},
        "second oracle": {number: win_rate(records, number, "secondWinRateBase") for number in numbers if number},
    }
    rates = {title: measured for title, measured in rates.items() if any(measured.values())}
    metrics = {"passRate": "pass rate", "meanTokens": "tokens", "distinctShare": "distinct", "klPerResponse": "KL"}
    rows = []
    for number in numbers:
        evaluated = records.get(Step(number, Stage.EVALUATE), Record())
        rows.append(
            (
                "base" if number == 0 else str(number),
                *(str(measured.get(number) or "") for measured in rates.values()),
                *(figure(evaluated.number(metric)) for metric in metrics),
            )
        )
    titles = ("iteration", *rates, *metrics.values())
    return table(
        titles, [row for row in rows if any(row[1:])], caption="Held-out results, win rates with 95 % interval"
    )


def _training_table(records: Records) -> str:
    trained = {step.iteration: record for step, record in records.items() if step.stage is Stage.TRAIN}
    there = [metric for metric in TRAINING_FIGURES if any(metric in record.metrics for record in trained.values())]
    rows = [
        (str(number), *(_trained(metric, trained[number].number(metric)) for metric in there))
        for number in sorted(trained)
        if trained[number].metrics
    ]
    titles = ("iteration", *(TRAINING_FIGURES[metric] for metric in there))
    return table(titles, rows, caption="What each training did to its own data, log-ratios after its last step")


def _trained(metric: str, value: float | None) -> str:
    return percent(value) if value is not None and metric.startswith("attained") else figure(value)
