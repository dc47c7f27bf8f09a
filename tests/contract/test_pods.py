"""What arrives in a pod: the env of every Job, after the kubelet's expansion, is what the trainer's parser reads."""

from __future__ import annotations

import copy
import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example as case
from hypothesis import given
from hypothesis import strategies as st
from kubelet import environment, expand
from sppo_operator.decide import Stage, Step
from sppo_operator.jobs import job_manifest
from sppo_operator.spec import Run
from sppo_operator.validation import admit, parse_manifest
from sppo_trainer.config import EvaluateConfig, GenerateConfig, PrepareConfig, ScoreConfig, StageConfig, TrainConfig
from sppo_trainer.config_document import parse
from sppo_trainer.preferences import Comparison, Response, all_pairs, load_oracle

EXAMPLES = sorted((Path(__file__).parents[2] / "manifests/examples").glob("*.yaml"))
STEPS: dict[Step, type[StageConfig]] = {
    Step(0, Stage.PREPARE): PrepareConfig,
    Step(0, Stage.EVALUATE): EvaluateConfig,
    Step(1, Stage.GENERATE): GenerateConfig,
    Step(2, Stage.SCORE): ScoreConfig,
    Step(3, Stage.TRAIN): TrainConfig,
}
VARIABLES = {"A": "1", "REFERENCE": "$(A)", "EMPTY": ""}
SECRETS = {
    ("hub", "token"): "hf_1",
    ("first", "key"): "key-1",
    ("second", "key"): "key-2",
    ("huggingface", "token"): "hf",
}


def admitted(path: Path) -> dict[str, Any]:
    return admit(parse_manifest(path.read_text("utf-8")))


RESOURCE = admitted(next(path for path in EXAMPLES if path.stem == "math-verifier"))


def variables(resource: dict[str, Any], step: Step, index: int = 0) -> dict[str, str]:
    """The environment of a worker of the step's first attempt."""
    job = job_manifest(Run.of(resource), "uid", step, 1, image="trainer", retries_left=3)
    return environment(job["spec"]["template"]["spec"], index=index, secrets=SECRETS)


# The cases of Kubernetes' own expand_test.go.
@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)-$(A)", "1-1"),
        ("$$(A)_$(A)", "$(A)_1"),
        ("foo\\$(A)bar", "foo\\1bar"),
        ("$(A$(A)", "$(A$(A)"),
        ("$(A$(A))", "$(A$(A))"),
        ("$(REFERENCE)", "$(A)"),
        ("foo$(EMPTY)bar", "foobar"),
        ("foo$(Awhoops!", "foo$(Awhoops!"),
        ("$?_boo_$!", "$?_boo_$!"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$$$$$(A)", "$$$(A)"),
        ("$$$$$$$(A)", "$$$1"),
        ("${A}", "${A}"),
        ("$(A)foobarzab$", "1foobarzab$"),
        ("--$($($($($--", "--$($($($($--"),
        ("$(foo$$var)", "$(foo$$var)"),
        ("$£FOO", "$£FOO"),
        ("$中文", "$中文"),
    ],
    ids=ascii,
)
def test_the_kubelet_of_these_tests_is_faithful(text: str, expanded: str) -> None:
    assert expand(text, lambda name: VARIABLES.get(name, f"$({name})")) == expanded


@pytest.mark.parametrize("step", STEPS, ids=str)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_pod_of_every_example_is_understood(path: Path, step: Step) -> None:
    resource = admitted(path)
    arrived = variables(resource, step)
    config, run = parse(STEPS[step], arrived["SPPO_CONFIG"]), Run.of(resource)
    assert (config.stage, config.iteration, config.workspace) == (step.stage.value, step.iteration, "/workspace")
    assert config.workers == resource["spec"]["stages"][step.stage.value].get("workers", 1)
    assert (config.run.name, config.run.digest, config.seed) == (run.name, run.digest(), run.spec["seed"])


@pytest.mark.parametrize("stage", Stage)
def test_the_command_is_a_module_of_the_trainer(stage: Stage) -> None:
    job = job_manifest(Run.of(RESOURCE), "uid", Step(1, stage), 1, image="trainer", retries_left=0)
    interpreter, flag, module = job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert (interpreter, flag) == ("python", "-m")
    assert importlib.util.find_spec(module) is not None


def test_a_training_pod_learns_how_many_processes_it_starts() -> None:
    config = parse(TrainConfig, variables(RESOURCE, Step(1, Stage.TRAIN))["SPPO_CONFIG"])
    assert config.processes_per_worker == 4


PIECES = ["$", "$$", "$(", "(", ")", "$(HOME)", "$$(HOME)", "$(MASTER_ADDR)", "\\", "\\\\", '"', "'", "`", "{", "}"]
PIECES += ["简短回答。", "🏆", "\u2028", "\n", "\t", "\x00", "\\u0024", "SPPO_CONFIG"]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), min_size=1, max_size=12).map("".join)


@given(text=texts)
@case(text="$(HOME)")
@case(text="$$")
@case(text="\\boxed{$x$}")
def test_any_text_survives_the_way_into_a_pod(text: str) -> None:
    resource = copy.deepcopy(RESOURCE)
    spec = resource["spec"]
    spec["model"]["systemPrompt"] = text
    spec["preference"]["verifier"]["rules"][0]["pattern"] = text
    judge = {"endpoint": "http://judge/v1", "model": text, "rubric": text}
    spec["evaluation"]["preference"] = {"kind": "Judge", "judge": judge}
    prepare = parse(PrepareConfig, variables(resource, Step(0, Stage.PREPARE))["SPPO_CONFIG"])
    evaluate = parse(EvaluateConfig, variables(resource, Step(1, Stage.EVALUATE))["SPPO_CONFIG"])
    score = parse(ScoreConfig, variables(resource, Step(1, Stage.SCORE))["SPPO_CONFIG"])
    assert score.preference.verifier is not None
    assert evaluate.evaluation.preference is not None
    assert evaluate.evaluation.preference.judge is not None
    assert prepare.model.system_prompt == text
    assert score.preference.verifier.rules[0].pattern == text
    assert evaluate.evaluation.preference.judge.rubric == text
    assert evaluate.evaluation.preference.judge.model == text


def test_without_the_escape_the_kubelet_would_change_it() -> None:
    assert expand('{"pattern": "$$ $(HOME)"}', {"HOME": "/home/sppo"}.__getitem__) == '{"pattern": "$ /home/sppo"}'


@pytest.fixture
def asked() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The URL of a chat endpoint, and the (model, Authorization) that it is asked with."""
    seen: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((body["model"], self.headers.get("Authorization", "")))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"choices": [{"message": {"content": "A"}}]}')

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("secrets", "expected"),
    [
        (("first", "second"), {("one", "Bearer key-1"), ("two", "Bearer key-2")}),
        (("first", None), {("one", "Bearer key-1"), ("two", "")}),
        ((None, "second"), {("one", ""), ("two", "Bearer key-2")}),
    ],
    ids=["both", "only the first", "only the second"],
)
def test_each_judge_is_asked_with_its_own_key(
    secrets: tuple[str | None, str | None],
    expected: set[tuple[str, str]],
    asked: tuple[str, list[tuple[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, seen = asked
    resource = copy.deepcopy(RESOURCE)
    for section, model, secret in zip(
        (resource["spec"], resource["spec"]["evaluation"]), ("one", "two"), secrets, strict=True
    ):
        judge: dict[str, Any] = {"endpoint": url, "model": model, "rubric": "r", "opponents": 0}
        section["preference"] = {"kind": "Judge", "judge": judge}
        if secret:
            judge["apiKeySecret"] = {"name": secret, "key": "key"}
    arrived = variables(resource, Step(1, Stage.EVALUATE))
    for name in ("SPPO_JUDGE_KEY", "SPPO_EVALUATION_JUDGE_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in arrived.items():
        if name.startswith("SPPO_"):
            monkeypatch.setenv(name, value)
    config = parse(EvaluateConfig, arrived["SPPO_CONFIG"])
    assert config.evaluation.preference is not None
    answer = Response(text="yes", token_count=1, finished=True)
    question = Comparison(
        messages=({"role": "user", "content": "?"},), columns={}, responses=(answer, answer), pairs=all_pairs(2)
    )
    load_oracle(config.preference, field="preference").judge([question])
    load_oracle(config.evaluation.preference, field="evaluation.preference").judge([question])
    assert set(seen) == expected
