"""The report: whole in itself, true to the records, and harmless whatever a model wrote."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from sppo_operator.commands.tables import headline, iterations, printable
from sppo_operator.decide import Finish, Outcome, Stage, Step, Wait
from sppo_operator.facts import Record
from sppo_operator.report.page import report, write_report
from sppo_operator.report.reproduce import manifest
from sppo_operator.report.timeline import timeline
from sppo_operator.results import LATEST_SECONDS, Made
from sppo_operator.summary import exact_duration, figure
from sppo_operator.validation import admit, parse_manifest
from told import HOSTILE, NOW, RESOURCE, Told, at, done, evaluated, full, full_curves, full_records, resource

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and collects the text and what would be loaded or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.active: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attrs}
        if tag in {"script", "link", "iframe", "img"} or "src" in names or any(name[:2] == "on" for name in names):
            self.active.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def __contains__(self, words: str) -> bool:
        return words in " ".join(" ".join(self.text).replace("\N{NO-BREAK SPACE}", " ").split())


def page(of: dict[str, Any], told: Told) -> tuple[str, Page]:
    text = report(of, told, NOW)
    return text, Page(text)


def test_a_finished_run_has_everything() -> None:
    text, read = page(*full())
    assert read.active == []
    assert "Iteration 2 is better than the base model : it wins 74 % of its comparisons on 40 held-out prompts" in read
    for said in (
        "The second oracle sees less.",
        "By iteration the gap was 4, 18, 20 points. A gap that grows is the sign of reward hacking.",
        "Past its best.",
        "Not in this report. Of the curves of iteration 3, one step of 2 was read.",
        "iteration 2, 95 % interval 70 to 78 %",
        "6,600 GPU-seconds requested",
        "In the whole run, by cause: application 1, disruption 1.",
        "train 2, attempt 1 Application 137 60s MemoryError",
        "Best improvements",
        "Worst regressions",
        "of all 40 held-out prompts the evaluation kept 32",
        "commit of model c0ffee",
        "torch 2.13.0",
        "trainer image registry.example/sppo-trainer:0.1.0@sha256:aaa",
    ):
        assert said in read, said
    assert read.ids == ["results", "training", "health", "answers", "time", "failures", "reproduce"]
    assert read.links == [f"#{identifier}" for identifier in read.ids]
    assert text.count('<figure class="chart">') == 10
    assert text.count('class="line s') == 4 + 3 * 5 + 7, "curves of three trainings, one line per figure and iteration"


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
def test_what_a_model_wrote_is_text(answer: str) -> None:
    sample = {"prompt": answer, "before": answer, "after": answer, "scoreBefore": None, "scoreAfter": None}
    records = {Step(1, Stage.EVALUATE): evaluated(2, 0.6)}
    text, read = page(resource(records), Told(by_evaluation={1: [sample]}, missing=[answer]))
    assert read.active == []
    assert all(character.isprintable() or character == "\n" or ord(character) > 0x9F for character in text)
    text.encode()
    words = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "�", answer)
    assert words in read.text or not answer.strip()


def test_a_run_that_has_just_begun() -> None:
    prepare = Step(0, Stage.PREPARE)
    text, read = page(resource({prepare: Record().started(at(0))}, Wait(prepare)), Told())
    assert "Still going. prepare is at work." in read
    assert "No trained policy has been evaluated yet ." in read
    assert '<figure class="chart">' not in text
    assert read.ids == ["time", "failures", "reproduce"]
    assert "as of 2026-01-31 13:00 UTC" in read


@pytest.mark.parametrize("value", ["nan", "-inf", "1e999"])
def test_metrics_that_are_no_finite_numbers_are_left_out(value: str) -> None:
    records = full_records()
    odd = {
        step: replace(it, metrics=dict.fromkeys(it.metrics, value)) for step, it in records.items() if step.iteration
    }
    out = io.StringIO()
    console = Console(file=out, width=160)
    console.print(iterations(records | odd, 160))
    _, read = page(resource(records | odd), full()[1])
    for shown in (out.getvalue(), " ".join(read.text)):
        assert not re.search(r"\b(nan|inf|1e999)\b", shown)
    assert {headline(step, record) for step, record in odd.items()} == {""}


@pytest.mark.parametrize("value", ["1e308", "-1.7e308", "5e-324", "1e-12", "-1"])
def test_a_page_comes_of_metrics_and_curves_of_any_size(value: str) -> None:
    odd = {step: replace(it, metrics=dict.fromkeys(it.metrics, value)) for step, it in full_records().items()}
    curves = {name: [float(value), None, 0.0, -float(value)] for name in full_curves()}
    told = replace(full()[1], by_training={1: curves, 2: {name: [None] for name in curves}})
    assert "Failures and retries" in page(resource(odd), told)[1]


@pytest.mark.parametrize("value", ["nan", "-inf", "inf", "1e+308"])
def test_a_figure_is_text_whatever_it_is(value: str) -> None:
    assert figure(float(value)) == value


def test_a_run_without_status() -> None:
    assert page(RESOURCE, Told())[1].ids == ["failures", "reproduce"]


def test_what_the_status_forgot_of_older_iterations_comes_from_the_artifacts() -> None:
    """The status keeps the stages of the newest iterations only."""
    many = full_records()
    for number in range(4, 9):
        many |= {Step(number, stage): many[Step(3, stage)] for stage in list(Stage)[1:]}
    of = resource(many)
    assert "stages" not in of["status"]["iterations"][1]
    notes = {"started": 1769860800.0, "seconds": 77.0}
    made = {Step(1, Stage.TRAIN): Made(metrics={"lossOverEta2": 0.0321}, content_digest="f" * 64, provenance=notes)}
    assert "0.0321" not in page(of, Told())[1]
    read = page(of, Told(by_step=made))[1]
    assert "1 0.0321" in read
    assert "f" * 64 in read
    assert "77s" in read
    assert page(of, Told(by_step={step: Made() for step in many}))[1].ids[0] == "results", "without any notes"
    last = math.nextafter(LATEST_SECONDS, 0)
    made = {Step(1, Stage.TRAIN): Made(provenance={"started": last, "seconds": last})}
    assert "train 1, attempt" in report(of, Told(by_step=made), NOW)


def test_the_manifest_can_be_applied_again() -> None:
    of, _ = full()
    again = admit(parse_manifest(manifest(of)))
    assert again["spec"] == of["spec"]
    assert (again["metadata"]["name"], again["metadata"]["namespace"]) == ("demo", "lab")
    assert yaml.safe_load(manifest(of)).keys() == {"apiVersion", "kind", "metadata", "spec"}


def test_numbers_in_strings_stay_strings_for_kubectl() -> None:
    """YAML 1.2 of kubectl takes 5e-6 for a number, and the resource wants a string."""
    changed = RESOURCE["spec"] | {"training": {"learningRate": "5e-6"}}
    assert "learningRate: '5e-6'" in manifest(RESOURCE | {"spec": changed})


def test_without_the_base_as_opponent_the_previous_policy_is_the_measure() -> None:
    previous = {"winRatePrevious": 0.6, "winRatePreviousLow": 0.55, "winRatePreviousHigh": 0.65}
    read = page(resource({Step(2, Stage.EVALUATE): done(3, 4, **previous)}), Told())[1]
    assert "Iteration 2 is better than iteration 1 : it wins 60 % of its comparisons on held-out prompts" in read


def test_long_curves_make_no_long_report() -> None:
    of, _ = full()
    long = report(of, Told(by_training={number: full_curves(20_000) for number in (1, 2, 3)}), NOW)
    assert len(long) < 1_000_000
    curves = long[long.index('id="training"') : long.index('id="health"')]
    assert curves.count('<path class="dot"') == 3 * 5 + 2, "the ends of the lines, and the two keys"


@pytest.mark.parametrize(
    ("steps", "shown"),
    [
        ([1, 101, 201], ["loss, 1: 0.3", "loss, 101: 0.2", "loss, 201: 0.1", "loss, 202: 0.3", "loss, 402: 0.1"]),
        ([], ["loss, 1: 0.3", "loss, 3: 0.1", "loss, 4: 0.3", "loss, 6: 0.1"]),
        ([1, None, 3], ["loss, 3: 0.1", "loss, 6: 0.1"]),
        ([1, 2, 1e308], ["loss, 3: 0.1", "loss, 6: 0.1"]),
    ],
    ids=["thinned", "without steps", "a step that is none", "an impossible step"],
)
def test_curves_lie_at_their_steps(steps: list[float | None], shown: list[str]) -> None:
    curves = {"step": steps, "lossOverEta2": [0.3, 0.2, 0.1]}
    text, _ = page(resource(full_records()), Told(by_training={1: curves, 2: curves}))
    for point in shown:
        assert point in text


def test_the_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("old")
    write_report(file, *full())
    assert file.read_text("utf-8").endswith("</html>\n")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_running_stage_ends_now() -> None:
    records = {Step(0, Stage.PREPARE): done(0, 10), Step(1, Stage.GENERATE): Record().started(at(10))}
    read = page(resource(records), Told())[1]
    assert "generate 1, attempt 1: Running; 50m from 2026-01-31 12:10:00" in read


def test_waiting_for_another_attempt_is_shown() -> None:
    read = page(*full())[1]
    assert "train 2 waited 60s for attempt 2" in read
    assert "train 2, attempt 2: Disruption; 60s from 2026-01-31 12:23:00; its node is gone" in read


@pytest.mark.parametrize(
    ("attempt", "bars"),
    [
        ({"active_seconds": 120}, ["held back for 3m", "Succeeded; 2m from 2026-01-31 12:03:00; 8 GPUs"]),
        ({"active_seconds": 300}, ["Succeeded; 5m from 2026-01-31 12:00:00; 8 GPUs"]),
        ({"active_seconds": None}, ["Succeeded; 5m from 2026-01-31 12:00:00; 8 GPUs"]),
        (
            {"active_seconds": 60, "active_since": at(50), "outcome": Outcome.RUNNING, "finished": None},
            ["held back for 49m", "Running; 11m from 2026-01-31 12:49:00; 8 GPUs"],
        ),
        ({"active_seconds": 0, "outcome": Outcome.RUNNING, "finished": None}, ["held back for 60m"]),
    ],
    ids=["queued first", "never held", "on one machine", "resumed", "still in the queue"],
)
def test_what_held_an_attempt_back_is_shown(attempt: dict[str, Any], bars: list[str]) -> None:
    record = done(0, 5)
    record = replace(record, newest=(replace(record.newest[0], gpus=8, **attempt),))
    shown = timeline({Step(1, Stage.TRAIN): record}, NOW)
    titles = re.findall(r"<title>(.*?)</title>", shown)
    assert len(titles) == len(bars)
    assert all(bar in title for bar, title in zip(bars, titles, strict=True))


@pytest.mark.parametrize(
    ("gpus", "ended", "says"),
    [
        (0, True, "No GPU was requested from Kubernetes."),
        (0, False, "No GPU was requested from Kubernetes so far."),
        (2, False, "GPU-seconds are counted when an attempt ends."),
    ],
)
def test_without_gpu_seconds_the_report_says_why(gpus: int, ended: bool, says: str) -> None:
    running = Record().started(at(3))
    running = replace(running, newest=(replace(running.newest[0], gpus=gpus),))
    step = Step(1, Stage.TRAIN)
    of = resource({Step(0, Stage.PREPARE): done(0, 2), step: running}, Finish() if ended else Wait(step))
    text, _ = page(of, Told())
    assert f'<p class="note">{says}</p>' in text
    assert "No GPU was requested" not in page(*full())[0], "where GPU-seconds were counted"


def test_the_times_of_a_table_add_up() -> None:
    records = {
        Step(0, Stage.PREPARE): Record().started(at(0)).ended(Outcome.SUCCEEDED, "2026-01-31T12:00:14Z"),
        Step(0, Stage.EVALUATE): Record().started(at(1)).ended(Outcome.SUCCEEDED, "2026-01-31T12:02:42Z"),
    }
    assert "0 14s 1m42s 1m56s all 14s 1m42s 1m56s" in page(resource(records), Told())[1]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0s"), (59.6, "1m00s"), (102, "1m42s"), (3599, "59m59s"), (12005, "3h20m05s"), (360_000, "100h00m00s")],
)
def test_an_exact_duration(seconds: float, shown: str) -> None:
    assert exact_duration(seconds) == shown


def test_a_chart_and_a_table_of_two_things_have_two_names() -> None:
    """Steps are measured before their update, trainings after their last step."""
    _, told = full()
    records = full_records() | {
        Step(1, Stage.TRAIN): done(7, 15, logRatioBest=7.4, attainedBest=0.984, attainedWorst=2.12)
    }
    text, read = page(resource(records), told)
    assert "<figcaption>Log-ratio before each update, nats<" in text
    assert "What each training did to its own data, log-ratios after its last step" in read
    assert "1 7.4 98 % 212 %" in read
    assert "more than 100 % is past the target" in read


def test_a_suspended_run_says_how_to_go_on() -> None:
    records = {Step(0, Stage.PREPARE): done(0, 2).started(at(3)).ended(Outcome.SUSPENDED, at(4), message="stopped")}
    of = resource(records)
    message = "Set spec.suspend to false, and the run goes on."
    condition = {"type": "Progressing", "status": "False", "reason": "Suspended", "message": message}
    read = page(of | {"status": of["status"] | {"conditions": [condition]}}, Told())[1]
    assert f"Standing still (Suspended). {message}" in read


def test_a_model_cannot_command_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x07\nc 简").plain == "a�[2Jb�\nc 简"
