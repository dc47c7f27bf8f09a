"""`sppo run` as a user meets it: real processes, signals and files, with a trainer that computes nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sppo_operator.schema import schema_causes, spporun_schema

STANDIN = Path(__file__).parent / "standin"
DEADLINE_SECONDS = 60.0
STEPS_OF_ONE_ITERATION = ["evaluate 0", "evaluate 1", "generate 1", "prepare", "score 1", "train 1"]
MANIFEST = """
apiVersion: sppo.dev/v1alpha1
kind: SPPORun
metadata: {name: demo, namespace: lab}
spec:
  iterations: 1
  model: {source: models/base, systemPrompt: 'Costs $5, $(HOME), 简短'}
  prompts: {source: prompts.jsonl, perIteration: 10, heldOut: 8}
  preference: {kind: Verifier, verifier: {rules: [{kind: Regex, pattern: '\\.$'}]}}
  objective: {beta: "0.05"}
  training: {learningRate: "5e-6"}
  workspace: {claimName: models}
  retries: {limit: 1}
"""


class Bench:
    """One workspace, one manifest, and the notes of the stand-in trainer."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "workspace"
        self.file = folder / "run.yaml"
        self.notes = folder / "notes"
        self.notes.mkdir()
        self.commands: list[subprocess.Popen[str]] = []
        self.manifest = yaml.safe_load(MANIFEST)
        self.faults()

    def faults(self, **faults: list[str]) -> None:
        """faults(train_1=["crash", ""]): what the first starts of a step do."""
        named = {step.replace("_", " "): kinds for step, kinds in faults.items()}
        (self.notes / "faults.json").write_text(json.dumps(named))

    def start(self, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """The command as a process, in a process group of its own as a shell would put it."""
        self.file.write_text(json.dumps(self.manifest))  # which is YAML
        path = os.pathsep.join([str(STANDIN), os.environ.get("PYTHONPATH", "")])
        command = subprocess.Popen(
            [sys.executable, "-m", "sppo_operator", *(arguments or ("run", self.file, "--workspace", self.workspace))],
            env=os.environ | {"PYTHONPATH": path, "SPPO_STANDIN": str(self.notes), "TERM": "xterm", "COLUMNS": "160"},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self.commands.append(command)
        return command

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = self.start(*arguments)
        out, error = command.communicate(timeout=DEADLINE_SECONDS)
        assert "Traceback" not in error
        return subprocess.CompletedProcess(command.args, command.returncode, out, error)

    def start_and_hang(self, step: str, **faults: list[str]) -> subprocess.Popen[str]:
        """A command whose given step, in its next start, works for ever; returns when it does."""
        self.faults(**{step.replace(" ", "_"): ["hang"]}, **faults)
        command = self.start()
        wait_until(lambda: (self.notes / f"{step}.hangs").exists() or command.poll() is not None)
        assert command.poll() is None, command.communicate()
        return command

    def starts(self) -> dict[str, list[dict[str, Any]]]:
        return {
            path.stem: [json.loads(line) for line in path.read_text().splitlines()]
            for path in sorted(self.notes.glob("*.starts"))
        }

    def start_counts(self) -> dict[str, int]:
        return {step: len(starts) for step, starts in self.starts().items()}

    def resource(self) -> dict[str, Any]:
        resource: dict[str, Any] = yaml.safe_load((self.workspace / "run.yaml").read_text())
        assert [str(cause) for cause in schema_causes(resource, spporun_schema())] == []
        return resource

    def condition(self, kind: str) -> tuple[str, str, str]:
        (found,) = (item for item in self.resource()["status"]["conditions"] if item["type"] == kind)
        return found["status"], found["reason"], found["message"]

    def stages(self) -> dict[str, dict[str, Any]]:
        return {
            stage["stage"] if stage["stage"] == "prepare" else f"{stage['stage']} {iteration['number']}": stage
            for iteration in self.resource()["status"]["iterations"]
            for stage in iteration["stages"]
        }

    def outcomes(self, step: str) -> list[str]:
        return [attempt["outcome"] for attempt in self.stages()[step]["attempts"]]

    def digests(self) -> dict[str, str]:
        return {step: stage["contentDigest"] for step, stage in self.stages().items()}

    def living(self) -> list[int]:
        """Stages that still run; a zombie does not."""
        pids = [start["pid"] for starts in self.starts().values() for start in starts]
        return [pid for pid in pids if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "this never came true"
        time.sleep(0.01)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for command in bench.commands:
        command.kill()
        command.communicate()
    wait_until(lambda: bench.living() == [])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The content digests of a run that nothing happened to."""
    bench = Bench(tmp_path_factory.mktemp("undisturbed"))
    assert bench.run().returncode == 0
    return bench.digests()


def test_a_run_from_beginning_to_end(bench: Bench) -> None:
    done = bench.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert bench.start_counts() == dict.fromkeys(STEPS_OF_ONE_ITERATION, 1)
    status = bench.resource()["status"]
    conditions = {item["type"]: item["status"] for item in status["conditions"]}
    assert conditions == {
        "Succeeded": "True",
        "Progressing": "False",
        "Queued": "False",
        "Suspended": "False",
        "Degraded": "False",
    }
    assert (status["phase"], status["bestIteration"]) == ("Succeeded", 1)
    assert status["summary"] == {"iteration": "1/1", "winRate": "0.60 [0.56, 0.64]"}
    assert status["iterations"][1]["winRate"] == {"base": {"mean": "0.6", "low": "0.56", "high": "0.64"}}
    assert bench.stages()["train 1"]["job"] == "demo-i1-train-a1"
    assert (bench.workspace / "lab/demo/logs/demo-i1-train-a1.log").read_text().startswith('{"progress"')
    assert re.search(r"│ +1 │ 0\.60 \[0\.56, 0\.64\] │", done.stdout)
    assert "Old & long" in done.stdout
    assert f"Report: {bench.workspace}/report.html" in done.stdout


def test_what_a_stage_finds_in_its_environment(bench: Bench) -> None:
    bench.run()
    starts = {step: start for step, (start,) in bench.starts().items()}
    cores = str(len(os.sched_getaffinity(0)))
    assert {start["OMP_NUM_THREADS"] for start in starts.values()} == {cores}
    assert {start["OMP_WAIT_POLICY"] for start in starts.values()} == {"passive"}
    assert [step for step, start in starts.items() if start["HF_HUB_OFFLINE"] is None] == ["prepare"]
    assert all(start["session"] == start["pid"] for start in starts.values())


def test_the_report_needs_nothing_but_itself(bench: Bench) -> None:
    bench.run()
    report = (bench.workspace / "report.html").read_text()
    assert not re.search(r"<script|<link|src=|href=|@import|url\(", report)
    assert "Why &lt;b&gt;now&lt;/b&gt;?" in report
    assert report.count("<svg") == 4
    (bench.workspace / "report.html").unlink()
    again = bench.run("report", str(bench.workspace))
    assert (again.returncode, again.stdout) == (0, f"{bench.workspace}/report.html\n")
    assert (bench.workspace / "report.html").read_text() == report


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("crash", "RuntimeError: the stand-in was told to crash"),
        ("silent", "ended without a result of at most 4096 bytes: see "),
        ("wordy", "ended without a result of at most 4096 bytes: see "),
        ("kill", "killed by signal 9, often for lack of memory: see "),
    ],
)
def test_a_failure_is_retried(bench: Bench, fault: str, said: str) -> None:
    bench.faults(score_1=[fault])
    assert bench.run().returncode == 0
    assert bench.outcomes("score 1") == ["Application", "Succeeded"]
    assert bench.stages()["score 1"]["attempts"][0]["message"].startswith(said)
    assert bench.stages()["score 1"]["job"] == "demo-i1-score-a2"
    assert bench.resource()["status"]["failures"]["application"] == 1


def test_after_the_last_retry_the_run_fails_and_the_same_command_tries_again(bench: Bench) -> None:
    bench.faults(generate_1=["crash", "crash", ""])
    failed = bench.run()
    assert failed.returncode == 1
    assert bench.condition("Succeeded") == (
        "False",
        "RetriesExhausted",
        "generate 1 failed 2 times, the last time: RuntimeError: the stand-in was told to crash",
    )
    assert bench.run().returncode == 0
    assert bench.outcomes("generate 1") == ["Application", "Application", "Succeeded"]
    assert bench.start_counts()["prepare"] == 1


def test_a_users_fault_ends_the_run_at_once(bench: Bench) -> None:
    bench.faults(evaluate_0=["hang"], generate_1=["user"])
    failed = bench.run()
    assert failed.returncode == 65
    assert failed.stderr == "error: generate 1: prompts.source has a bad line 7: mend it\n"
    assert bench.condition("Succeeded") == ("False", "UserFault", failed.stderr.removeprefix("error: ").rstrip())
    assert bench.start_counts()["generate 1"] == 1
    assert (bench.living(), bench.outcomes("evaluate 0")) == ([], ["Suspended"])
    bench.faults()
    assert bench.run().returncode == 0
    assert bench.outcomes("generate 1") == ["UserFault", "Succeeded"]


def test_a_run_goes_on_without_a_broken_evaluation(bench: Bench) -> None:
    bench.manifest["spec"] |= {"iterations": 2, "retries": {"limit": 0}}
    bench.faults(evaluate_0=["crash"])
    done = bench.run()
    assert done.returncode == 0
    assert bench.condition("Succeeded")[0] == "True"
    assert bench.condition("Degraded")[:2] == ("True", "EvaluationFailed")
    assert bench.stages()["evaluate 0"]["state"] == "GivenUp"
    assert bench.run().returncode == 0
    assert bench.start_counts()["evaluate 0"] == 2
    assert bench.start_counts()["evaluate 2"] == 1
    assert bench.condition("Degraded")[1] != "EvaluationFailed"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_a_stopped_command_goes_on_where_it_was(bench: Bench, number: signal.Signals, status: int) -> None:
    command = bench.start_and_hang("train 1")
    os.killpg(command.pid, number)  # what a terminal does; the stages are out of its reach
    command.communicate(timeout=DEADLINE_SECONDS)
    assert command.returncode == status
    assert (bench.living(), bench.outcomes("train 1")) == ([], ["Suspended"])
    assert bench.condition("Progressing")[:2] == ("False", "Stopped")
    assert bench.run().returncode == 0
    assert bench.start_counts() == dict.fromkeys(STEPS_OF_ONE_ITERATION, 1) | {"train 1": 2}


@pytest.mark.parametrize("step", STEPS_OF_ONE_ITERATION)
def test_a_killed_command_leaves_nothing_running_and_goes_on(
    bench: Bench, step: str, undisturbed: dict[str, str]
) -> None:
    command = bench.start_and_hang(step)
    command.kill()
    wait_until(lambda: bench.living() == [])
    assert bench.run().returncode == 0
    assert bench.outcomes(step) == ["Vanished", "Succeeded"]
    assert bench.digests() == undisturbed


def test_two_commands_in_one_folder(bench: Bench) -> None:
    first = bench.start_and_hang("score 1")
    second = bench.run()
    assert second.returncode == 75
    assert second.stderr == (
        f"error: {bench.workspace} is in use by process {first.pid}: wait for it, stop it, or use another one\n"
    )
    assert first.poll() is None


def test_a_changed_immutable_field_is_refused_in_the_api_servers_words(bench: Bench) -> None:
    bench.run()
    before = bench.resource()
    bench.manifest["spec"]["objective"]["beta"] = "0.001"
    refused = bench.run()
    assert refused.returncode == 78
    message = "spec.objective may not change after the run was created: restore it, or create another run"
    assert message in refused.stderr
    assert bench.resource() == before


def test_more_iterations_continue_a_finished_run(bench: Bench) -> None:
    bench.run()
    began = bench.resource()
    bench.manifest["spec"]["iterations"] = 2
    assert bench.run().returncode == 0
    more = ["generate 2", "score 2", "train 2", "evaluate 2"]
    assert bench.start_counts() == dict.fromkeys(STEPS_OF_ONE_ITERATION + more, 1)
    metadata = bench.resource()["metadata"]
    assert (began["metadata"]["generation"], metadata["generation"]) == (1, 2)
    assert metadata["creationTimestamp"] == began["metadata"]["creationTimestamp"]
    assert {item["observedGeneration"] for item in bench.resource()["status"]["conditions"]} == {2}


def test_falling_likelihoods_are_reported(bench: Bench) -> None:
    bench.manifest["spec"]["iterations"] = 2
    done = bench.run()
    assert done.returncode == 0
    assert bench.condition("Degraded")[:2] == ("True", "LikelihoodFalling")
    assert done.stderr.startswith("warning: In iteration 2 the log-ratios")


def test_run_yaml_is_whole_at_every_moment(bench: Bench) -> None:
    command = bench.start()
    wait_until((bench.workspace / "run.yaml").exists)
    readings = 0
    while command.poll() is None:
        bench.resource()
        readings += 1
    assert readings > 3
    assert command.returncode == 0
    before = (bench.workspace / "run.yaml").stat()
    assert bench.run().returncode == 0
    after = (bench.workspace / "run.yaml").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns), "it was written without a change"


@pytest.mark.parametrize("text", ["", "kind: [", "kind: SPPORun\n", "\x00\x01"], ids=["empty", "torn", "half", "noise"])
def test_a_damaged_run_yaml_is_named(bench: Bench, text: str) -> None:
    bench.workspace.mkdir()
    (bench.workspace / "run.yaml").write_text(text)
    refused = bench.run()
    assert refused.returncode == 65
    assert refused.stderr == (
        f"error: {bench.workspace}/run.yaml is damaged: restore it, or remove it to start over from the finished "
        "pieces beside it\n"
    )


def test_without_run_yaml_the_finished_pieces_are_found_again(bench: Bench) -> None:
    bench.run()
    digests = bench.digests()
    (bench.workspace / "run.yaml").unlink()
    assert bench.run().returncode == 0
    assert bench.digests() == digests


def test_a_folder_holds_one_run(bench: Bench) -> None:
    bench.run()
    bench.manifest["metadata"]["name"] = "other"
    refused = bench.run()
    assert refused.returncode == 64
    assert "is the run lab/demo, not lab/other: use another --workspace" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "missing.yaml", "--workspace", "w"], 66, "error: missing.yaml cannot be read (No such file or"),
        (["validate", "missing.yaml"], 66, "error: missing.yaml cannot be read (No such file or directory)"),
        (["report", "nowhere"], 66, "holds no run.yaml: give the --workspace of a run"),
        (["run", "{file}", "--workspace", "{file}/w"], 74, "/w cannot be used (Not a directory): name a folder"),
    ],
    ids=["run", "validate", "report", "workspace"],
)
def test_what_is_not_there_is_named(bench: Bench, arguments: list[str], code: int, said: str) -> None:
    refused = bench.run(*(argument.format(file=bench.file) for argument in arguments))
    assert refused.returncode == code
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_validate(bench: Bench) -> None:
    assert bench.run("validate", str(bench.file)).stdout == "spporun.sppo.dev/demo is valid\n"
    bench.manifest["spec"]["iterations"] = -1
    refused = bench.run("validate", str(bench.file))
    assert refused.returncode == 78
    assert "spec.iterations" in refused.stderr


def test_a_suspended_run_is_not_started(bench: Bench) -> None:
    bench.manifest["spec"]["suspend"] = True
    refused = bench.run()
    assert (refused.returncode, bench.starts()) == (64, {})
    assert refused.stderr == "error: spec.suspend of lab/demo is true: set it to false to run it here\n"


def test_a_full_disk_is_named_and_stops_the_stages(bench: Bench) -> None:
    bench.workspace.mkdir()
    (bench.workspace / ".run.yaml.new").symlink_to("/dev/full")
    refused = bench.run()
    assert refused.returncode == 74
    assert "cannot be written (No space left on device): free space or mend it" in refused.stderr
    assert bench.living() == []


def test_a_reader_that_goes_away_ends_the_command(bench: Bench) -> None:
    command = bench.start()
    assert command.stdout is not None
    command.stdout.close()
    assert command.stderr is not None
    assert command.stderr.read() == ""
    assert command.wait(DEADLINE_SECONDS) == 1
    assert bench.living() == []


def test_the_live_view_draws_on_a_terminal(bench: Bench) -> None:
    terminal, end = os.openpty()
    bench.faults(train_1=["crash"])
    command = bench.start(stdout=end)
    os.close(end)
    shown = b"".join(iter(lambda: read_terminal(terminal), b"")).decode()
    assert command.wait(DEADLINE_SECONDS) == 0
    assert "\x1b[" in shown  # it moves the cursor
    assert re.search(r"▶.*train 1", shown)
    assert "Application: RuntimeError: the stand-in was told to crash" in shown
    assert shown.rstrip().endswith(f"Report: {bench.workspace}/report.html")


def read_terminal(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO: the other end is closed
        return b""
