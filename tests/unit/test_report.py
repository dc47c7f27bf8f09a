"""The report: whole in itself, true to the records, and harmless whatever a model wrote."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml
from sppo_operator.decide import Finish, Outcome, Stage, Step
from sppo_operator.facts import Record
from sppo_operator.report import report
from sppo_operator.results import Results
from sppo_operator.spec import Run
from sppo_operator.status import Facts, status_of
from sppo_operator.tables import printable
from sppo_operator.validation import admit

NOW, LATER = "2026-01-31T12:00:00Z", "2026-01-31T12:01:40Z"
HOSTILE = "</td><script>alert(1)</script>\x1b[2J"
RESOURCE = admit(
    yaml.safe_load("""
apiVersion: sppo.dev/v1alpha1
kind: SPPORun
metadata: {name: demo, namespace: lab}
spec:
  model: {source: models/base, systemPrompt: "</pre><script>alert(2)</script>"}
  prompts: {source: prompts.jsonl, perIteration: 10, heldOut: 8}
  preference: {kind: Verifier, verifier: {rules: [{kind: Finished}]}}
  objective: {beta: '0.05'}
  training: {learningRate: '0.000005'}
  workspace: {claimName: models}
""")
)
VOID = {"meta", "line", "polyline", "circle", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and collects the text and what would be loaded or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.active: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "iframe", "img"} or {name for name, _ in attrs} & {"src", "href", "onload"}:
            self.active.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def done(**metrics: float) -> Record:
    return Record().started(NOW).ended(Outcome.SUCCEEDED, LATER).with_result(metrics, "d" * 64)


def rates(value: float) -> dict[str, float]:
    return {"winRateBase": value, "winRateBaseLow": value - 0.04, "winRateBaseHigh": value + 0.04, "meanTokens": 9.5}


def publish(folder: Path, name: str, data: Any) -> None:
    (folder / "a-1").mkdir(parents=True)
    (folder / "a-1" / name).write_text(json.dumps(data))
    (folder / "manifest.json").write_text(json.dumps({"files": [{"name": name, "path": f"a-1/{name}"}]}))


def page(workspace: Path, records: dict[Step, Record]) -> tuple[str, Page]:
    run = Run.of(RESOURCE)
    status = status_of(run, Facts(records=records), (Finish(),), {}, NOW)
    text = report(RESOURCE | {"status": status}, Results.of(run, workspace))
    return text, Page(text)


def test_a_finished_run(tmp_path: Path) -> None:
    folder = tmp_path / "lab/demo"
    for number in (1, 2):
        curves = {"step": [1, 2], "lossOverEta2": [0.04, None], "logRatioBest": [0, 1], "logRatioWorst": [0, -1]}
        publish(folder / f"i{number}/train", "curves.json", curves)
    sample = {"prompt": HOSTILE, "before": HOSTILE, "after": HOSTILE, "scoreBefore": 0.25, "scoreAfter": None}
    publish(folder / "i2/evaluate", "samples.json", [sample])
    records = {
        Step(0, Stage.PREPARE): done(rows=40),
        Step(0, Stage.EVALUATE): done(**rates(0.5)),
        Step(1, Stage.TRAIN): done(lossOverEta2=0.03),
        Step(1, Stage.EVALUATE): done(**rates(0.6)),
        Step(2, Stage.TRAIN): done(lossOverEta2=0.02),
        Step(2, Stage.EVALUATE): done(**rates(0.7)),
    }
    text, read = page(tmp_path, records)
    assert read.active == []
    assert "Iteration 2 wins " in read.text
    assert "0.70 [0.66, 0.74]" in read.text
    assert HOSTILE in read.text, "what the model wrote is shown as text"
    assert read.text.count("d" * 64) == len(records)
    assert [cell for cell in read.text if cell == "100"][:2] == ["100"] * 2, "seconds per stage"
    assert text.count("<figure>") == 4, "win rate, loss, log-ratios, lengths; no gradient norms were recorded"
    assert text.count('class="key') == 2, "best and worst, once for both iterations"
    assert "prefers-color-scheme: dark" in text


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    text, read = page(tmp_path, {Step(0, Stage.PREPARE): done()})
    assert "Not evaluated yet " in read.text
    assert "<figure>" not in text


def test_a_model_cannot_command_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x07\nc 简").plain == "a�[2Jb�\nc 简"
