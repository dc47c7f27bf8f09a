"""From the resource of a run to its series: tables of what is shown, what is not, and how much at most."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample
from run_resources import AN_HOUR_AGO, HALF_AN_HOUR_AGO, MOST_SERIES, STAGES, Object, at, attempt, largest, resource
from simulated_operator import SimulatedOperator, held_at
from sppo_operator.run_metrics import COUNT_LAG_SECONDS, FAMILIES, families
from sppo_operator.schema import schema_causes, spporun_schema

NOW = datetime.fromisoformat("2026-01-31T13:00:00Z").timestamp()
DIGITS = st.from_regex(r"[-+]?[0-9]{1,3}(\.[0-9]{1,3})?([eE][-+]?[0-9]{1,4})?", fullmatch=True)
JUNK = (
    st.text(max_size=32) | DIGITS | st.sampled_from(["nan", "-inf", "Infinity", "1e999", "0x10", "1_0", "", " 1", "٣"])
)


def unreadable(resource: Object, error: Exception) -> None:
    raise AssertionError(f"{resource['metadata']['name']} has no series") from error


class Scrape:
    def __init__(self, *resources: Object) -> None:
        self.resources = resources

    def collect(self) -> Iterator[Metric]:
        return families(self.resources, NOW, unreadable)


def lines(*resources: Object, family: str = "") -> list[str]:
    """The series of these runs, without namespace and run; of one family or of all."""
    samples = [sample for metric in families(resources, NOW, unreadable) for sample in metric.samples]
    assert len({(sample.name, *sample.labels.values()) for sample in samples}) == len(samples), "one is there twice"
    names = {f"sppo_run_{family}", f"sppo_run_{family}_total"}
    return [_line(sample) for sample in samples if not family or sample.name in names]


def _line(sample: Sample) -> str:
    labels = [f'{name}="{value}"' for name, value in sample.labels.items() if name not in ("namespace", "run")]
    return f"{sample.name}{{{','.join(labels)}}} {sample.value:.12g}"


def test_a_run_that_nobody_looked_at_yet() -> None:
    assert lines(resource()) == [
        'sppo_runs{phase="New"} 1',
        'sppo_run_info{image="",policy="models/base",uid="uid-of-demo"} 1',
        "sppo_run_created_timestamp_seconds{} 1769860800",
        'sppo_run_phase{phase="New"} 1',
        "sppo_run_iterations{} 3",
        "sppo_run_retries_limit{} 3",
        *(f'sppo_run_failures_total{{cause="{cause}"}} 0' for cause in ("user", "application", "disruption", "eviction")),
    ]  # fmt: skip


RUNS: dict[str, tuple[Object, str, list[str]]] = {
    "the phase": ({"phase": "Training"}, "phase", ['{phase="Training"} 1']),
    "its times": ({"startTime": AN_HOUR_AGO, "finishTime": HALF_AN_HOUR_AGO}, "finish_timestamp_seconds", ["{} 1769862600"]),
    "a time that is none": ({"startTime": "2026-02-30T99:00:00Z"}, "start_timestamp_seconds", []),
    "the image that it keeps": ({"image": "trainer:1"}, "info", ['{image="trainer:1",policy="models/base",uid="uid-of-demo"} 1']),
    "conditions": (
        {"conditions": [{"type": "Succeeded", "status": "Unknown", "reason": "Running"}, {"type": "Degraded", "status": "True", "reason": "EvaluationFailed"}]},
        "condition",
        ['{condition="Succeeded",status="Unknown",reason="Running"} 1', '{condition="Degraded",status="True",reason="EvaluationFailed"} 1'],
    ),
    "the newest iteration": ({"iterations": [at(0), at(1), at(2)]}, "iteration", ["{} 2"]),
    "the best iteration": ({"bestIteration": 1}, "best_iteration", ["{} 1"]),
    "failures": ({"failures": {"user": 1, "eviction": 4}}, "failures", ['{cause="user"} 1', '{cause="application"} 0', '{cause="disruption"} 0', '{cause="eviction"} 4']),
    "win rates": (
        {"iterations": [at(1, winRate={"base": {"mean": "0.7", "low": "0.6", "high": "0.8"}, "secondPrevious": {"mean": "5e-1"}})]},
        "win_rate",
        ['{iteration="1",against="base",oracle="training"} 0.7', '{iteration="1",against="previous",oracle="second"} 0.5'],
    ),
    "the interval's lower end": ({"iterations": [at(1, winRate={"base": {"low": "0.6"}})]}, "win_rate_low", ['{iteration="1",against="base",oracle="training"} 0.6']),
    "iterations of which series are shown": (
        {"iterations": [at(number, winRate={"base": {"mean": "0.5"}}) for number in range(9)]},
        "win_rate",
        [f'{{iteration="{number}",against="base",oracle="training"}} 0.5' for number in (0, 5, 6, 7, 8)],
    ),
    "the best iteration is shown however old it is": (
        {"bestIteration": 2, "iterations": [at(number, winRate={"base": {"low": "0.5"}}) for number in range(9)]},
        "win_rate_low",
        [f'{{iteration="{number}",against="base",oracle="training"}} 0.5' for number in (0, 2, 5, 6, 7, 8)],
    ),
    "GPU-seconds of what ended": ({"gpuSeconds": {"train": 100, "score": 0}}, "gpu_seconds", ['{stage="train"} 100', '{stage="score"} 0']),
}  # fmt: skip


@pytest.mark.parametrize(("status", "family", "expected"), RUNS.values(), ids=RUNS)
def test_of_a_run(status: Object, family: str, expected: list[str]) -> None:
    suffix = "_total" if FAMILIES[family].counter else ""
    assert lines(resource(**status), family=family) == [f"sppo_run_{family}{suffix}{rest}" for rest in expected]


RUNNING = {"stage": "train", "state": "Running", "attempts": [attempt(outcome="Running")]}
PROGRESS = {"done": 5, "total": 20, "unit": "steps", "secondsLeft": 90, "figures": {"lossOverEta2": "0.25", "gradNorm": "nan", "tokensPerSecond": "1500", "two words": "1"}}  # fmt: skip
TRAINED = {"lossOverEta2": "0.01", "logRatioBest": "2.5", "logRatioWorst": "-3", "tokensPerSecond": "900"}
ON_GPUS = attempt(outcome="Running", gpus=8)
STAGE_SERIES: dict[str, tuple[Object, str, list[str]]] = {
    "waits for others": ({"state": "Pending"}, "stage_state", ['state="Pending"} 1']),
    "made no attempt": ({"state": "Pending"}, "stage_attempts", []),
    "its state": (RUNNING, "stage_state", ['state="Running"} 1']),
    "attempts": ({"state": "Failed", "attempts": [attempt(3, "Application"), attempt(4, "UserFault")], "charged": 2}, "stage_attempts", ["} 4"]),
    "charged failures": ({"state": "Failed", "attempts": [attempt(4, "Application")], "charged": 2}, "stage_charged_failures", ["} 2"]),
    "nothing charged": (RUNNING, "stage_charged_failures", ["} 0"]),
    "a start": (RUNNING | {"startTime": HALF_AN_HOUR_AGO}, "stage_start_timestamp_seconds", ["} 1769862600"]),
    "an end": ({"state": "Succeeded", "attempts": [attempt()], "finishTime": HALF_AN_HOUR_AGO}, "stage_finish_timestamp_seconds", ["} 1769862600"]),
    "all the time of one that runs": (RUNNING, "stage_duration_seconds", ["} 3600"]),
    "all the time of one that ended": ({"state": "Failed", "attempts": [attempt(finishTime=HALF_AN_HOUR_AGO)]}, "stage_duration_seconds", ["} 1800"]),
    "the time at work": ({"state": "Succeeded", "attempts": [attempt(finishTime=HALF_AN_HOUR_AGO, activeSeconds=60), attempt(2, activeSeconds=5)]}, "stage_duration_seconds", ["} 65"]),
    "the time at work until now": (RUNNING | {"attempts": [attempt(outcome="Running", activeSeconds=60, activeSince=HALF_AN_HOUR_AGO)]}, "stage_duration_seconds", ["} 1860"]),
    "no time in a queue": ({"state": "Queued", "attempts": [attempt(outcome="Running", activeSeconds=60)]}, "stage_duration_seconds", ["} 60"]),
    "how much is done": (RUNNING | {"progress": PROGRESS}, "stage_progress_ratio", ["} 0.25"]),
    "of nothing": (RUNNING | {"progress": {"done": 0, "total": 0}}, "stage_progress_ratio", []),
    "what is left": (RUNNING | {"progress": PROGRESS}, "stage_remaining_seconds", ["} 90"]),
    "live curves, but no text": (RUNNING | {"progress": PROGRESS}, "stage_figure", ['figure="lossOverEta2"} 0.25']),
    "live speed": (RUNNING | {"progress": PROGRESS}, "stage_tokens_per_second", ["} 1500"]),
    "no curves of one that waits": (RUNNING | {"state": "Queued", "progress": PROGRESS}, "stage_figure", []),
    "speed at the end": ({"state": "Succeeded", "attempts": [attempt()], "metrics": TRAINED}, "stage_tokens_per_second", ["} 900"]),
    "GPUs at work": (RUNNING | {"attempts": [ON_GPUS | {"activeSince": HALF_AN_HOUR_AGO, "activeSeconds": 10}]}, "gpu_seconds", [f"}} {8 * (1810 - COUNT_LAG_SECONDS)}"]),
    "GPUs that have just begun": (RUNNING | {"attempts": [ON_GPUS | {"activeSince": "2026-01-31T12:59:55Z", "activeSeconds": 0}]}, "gpu_seconds", ["} 0"]),
    "GPUs whose time is not recorded, which their end would not count": (RUNNING | {"attempts": [ON_GPUS]}, "gpu_seconds", []),
    "GPUs in a queue": (RUNNING | {"state": "Queued", "attempts": [ON_GPUS | {"activeSeconds": 7}]}, "gpu_seconds", ["} 56"]),
    "GPUs that are in the status": (RUNNING | {"attempts": [attempt(gpus=8, activeSeconds=50)]}, "gpu_seconds", []),
    "loss": ({"state": "Succeeded", "metrics": TRAINED}, "loss_over_eta2", ["} 0.01"]),
    "log-ratios": ({"state": "Succeeded", "metrics": TRAINED}, "log_ratio_nats", ['role="best"} 2.5', 'role="worst"} -3']),
    "a metric that is no number": ({"state": "Succeeded", "metrics": {"lossOverEta2": "1e999"}}, "loss_over_eta2", []),
    "KL": ({"stage": "evaluate", "state": "Succeeded", "metrics": {"klPerResponse": "1.5"}}, "kl_nats", ["} 1.5"]),
    "passed at the score": ({"stage": "score", "state": "Succeeded", "metrics": {"passRate": "0.4"}}, "pass_ratio", ["} 0.4"]),
    "passed at the evaluation": ({"stage": "evaluate", "state": "Succeeded", "metrics": {"passRate": "0.4"}}, "pass_ratio", ["} 0.4"]),
    "length": ({"stage": "generate", "state": "Succeeded", "metrics": {"meanTokens": "12"}}, "response_tokens", ["} 12"]),
    "cut": ({"stage": "generate", "state": "Succeeded", "metrics": {"cutShare": "0.1"}}, "cut_ratio", ["} 0.1"]),
}  # fmt: skip


@pytest.mark.parametrize(("stage", "family", "expected"), STAGE_SERIES.values(), ids=STAGE_SERIES)
def test_of_a_stage(stage: Object, family: str, expected: list[str]) -> None:
    stage = {"stage": "train", **stage}
    found = lines(resource(iterations=[at(2, stage)]), family=family)
    told = {"iteration": "2", "stage": stage["stage"]}
    names = [name for name in FAMILIES[family].labels.split() if name in told]
    first = ",".join(f'{name}="{told[name]}"' for name in names)
    assert [line.partition("{")[2] for line in found] == [
        first + ("" if rest.startswith("}") else ",") + rest for rest in expected
    ]


def test_a_gpu_counter_counts_attempts_of_all_iterations() -> None:
    running = [attempt(outcome="Running", gpus=1, activeSeconds=100)]
    late = [at(number, {"stage": "evaluate", "state": "Running", "attempts": running}) for number in range(7)]
    assert lines(resource(iterations=late, gpuSeconds={"evaluate": 1}), family="gpu_seconds") == [
        'sppo_run_gpu_seconds_total{stage="evaluate"} 701'
    ]


def test_runs_are_counted_by_namespace_and_phase() -> None:
    runs = [
        resource("a", phase="Queued"),
        resource("b", phase="Queued"),
        resource("c", "team", phase="Queued"),
        resource("d"),
    ]
    counted, *_ = families(runs, NOW, unreadable)
    assert [(*sample.labels.values(), sample.value) for sample in counted.samples] == [
        ("lab", "Queued", 2),
        ("team", "Queued", 1),
        ("lab", "New", 1),
    ]


def test_a_run_that_cannot_be_read_is_named_and_the_others_are_shown() -> None:
    old, odd = resource("old"), resource("odd", iterations=[{"number": 1, "stages": [RUNNING | {"attempts": [{}]}]}])
    del old["spec"]["model"]
    named: list[str] = []
    metrics = families(
        [old, resource(), odd], NOW, lambda run, error: named.append(f"{run['metadata']['name']}: {error!r}")
    )
    samples = [sample for metric in metrics for sample in metric.samples]
    assert {sample.labels["run"] for sample in samples if "run" in sample.labels} == {"demo"}
    assert [sample.value for sample in samples if sample.name == "sppo_runs"] == [1]
    assert named == ["old: KeyError('model')", "odd: KeyError('number')"]


def test_a_run_that_is_gone_has_no_series() -> None:
    assert lines() == []
    assert not [line for line in lines(resource("kept")) if "demo" in line]


def test_names_of_users_are_escaped() -> None:
    run = resource()
    run["spec"]["model"]["source"] = 'a"b\\c\nd'
    text = generate_latest(Scrape(run)).decode()
    assert r'policy="a\"b\\c\nd"' in text
    samples = [sample for family in parse_text(text) for sample in family.samples]
    assert [sample.labels["policy"] for sample in samples if sample.name == "sppo_run_info"] == ['a"b\\c\nd']


# How much at most


def test_no_run_has_more_series_than_the_documentation_says() -> None:
    run = largest()
    assert [str(cause) for cause in schema_causes(run, spporun_schema())] == []
    assert len(lines(run)) == MOST_SERIES + 1, "one more counts the runs"


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("conditions", 8),
        ("iterations", 101),
        ("iterations.stages", 5),
        ("iterations.stages.progress.figures", 8),
        ("gpuSeconds", 5),
        ("failures", 4),
    ],
)
def test_the_largest_status_is_the_largest_that_the_crd_allows(path: str, limit: int) -> None:
    schema = spporun_schema()["properties"]["status"]
    for name in path.split("."):
        schema = schema.get("items", schema)["properties"][name]
    bounds = (schema.get("maxItems"), schema.get("maxProperties"), len(schema.get("properties", ())))
    assert limit in bounds


# Anything that an image may report

FIGURES = st.dictionaries(st.text(max_size=8) | st.sampled_from(["loss", "tokensPerSecond"]), JUNK, max_size=3)
METRIC_NAMES = st.sampled_from(["lossOverEta2", "logRatioBest", "klPerResponse", "passRate", "meanTokens", "cutShare", "tokensPerSecond"])  # fmt: skip
STAGE = st.fixed_dictionaries(
    {
        "state": st.sampled_from(["Running", "Succeeded", "Queued", "Failed"]),
        "attempts": st.just([attempt(outcome="Running", gpus=1)]),
        "progress": st.fixed_dictionaries(
            {"done": st.integers(0, 2**53 - 1), "total": st.integers(0, 2**53 - 1), "figures": FIGURES},
            optional={"secondsLeft": st.integers(0, 2**53 - 1)},
        ),
        "metrics": st.dictionaries(METRIC_NAMES, JUNK, max_size=3),
    }
)
RATES = st.dictionaries(
    st.sampled_from(["base", "secondBase"]), st.dictionaries(st.sampled_from(["mean", "low"]), JUNK)
)


@given(st.dictionaries(st.sampled_from(STAGES), STAGE, min_size=1), RATES)
def test_whatever_an_image_reports_the_scrape_is_sound(stages: Mapping[str, Object], rates: Object) -> None:
    iterations = [at(1, *({"stage": name, **stage} for name, stage in stages.items()), winRate=rates)]
    scrape = Scrape(resource(phase="Training", iterations=iterations))
    for accept, parse in (("", parse_text), ("application/openmetrics-text; version=1.0.0", parse_openmetrics)):
        encode, _ = choose_encoder(accept)
        samples = [sample for family in parse(encode(scrape).decode()) for sample in family.samples]
        assert len(samples) <= MOST_SERIES + 1
        assert all(math.isfinite(sample.value) for sample in samples)
        assert len({(sample.name, *sorted(sample.labels.items())) for sample in samples}) == len(samples)


# What the operator itself writes


def test_curves_are_shown_while_a_stage_of_the_operator_runs() -> None:
    operator = held_at("train")
    line = '{"progress": {"done": 2, "total": 8, "unit": "steps", "figures": {"lossOverEta2": 0.5, "tokensPerSecond": 50}}}'
    operator.cluster.logs["demo-i1-train-a1"] = line
    operator.read_logs()
    operator.look()
    where = '{iteration="1",stage="train"}'
    assert lines(operator.run, family="stage_tokens_per_second") == [f"sppo_run_stage_tokens_per_second{where} 100"]
    figure = 'iteration="1",stage="train",figure="lossOverEta2"'
    assert lines(operator.run, family="stage_figure") == [f"sppo_run_stage_figure{{{figure}}} 0.5"]
    operator.edit(spec={"suspend": True})
    operator.rest()
    assert lines(operator.run, family="stage_figure") == []


def test_how_many_series_a_usual_run_has() -> None:
    operator = SimulatedOperator(iterations=4)
    operator.finish()
    # The simulated stages report little: a real one adds about forty.
    assert 100 < len(lines(operator.run)) < 200
