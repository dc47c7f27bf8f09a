"""`sppo run` as a user meets it: real processes and files, with a trainer that computes nothing."""

from __future__ import annotations

import os
import re
import shutil

import pytest
from bench import DEADLINE_SECONDS, STEPS_OF_ONE_ITERATION, Bench
from sppo_operator.commands.machine import usable_cores


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
    assert {start["OMP_NUM_THREADS"] for start in starts.values()} == {str(usable_cores())}
    assert {start["OMP_WAIT_POLICY"] for start in starts.values()} == {"passive"}
    assert [step for step, start in starts.items() if start["HF_HUB_OFFLINE"] is None] == ["prepare"]
    assert all(start["session"] == start["pid"] for start in starts.values())


def test_the_report_needs_nothing_but_itself(bench: Bench) -> None:
    bench.run()
    report = (bench.workspace / "report.html").read_text()
    assert not re.search(r"<script|<link|src=|href=(?!\"#)|@import|url\(", report)
    assert "Why &lt;b&gt;now&lt;/b&gt;?" in report
    assert report.count('<figure class="chart">') == 9
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


def test_an_attempt_beyond_its_deadline_is_stopped_and_retried(bench: Bench) -> None:
    bench.manifest["spec"]["stages"] = {"score": {"deadlineSeconds": 1}}
    bench.faults(score_1=["hang"])
    assert bench.run().returncode == 0
    assert bench.outcomes("score 1") == ["Application", "Succeeded"]
    assert bench.stages()["score 1"]["attempts"][0]["message"] == (
        "stopped after spec.stages.score.deadlineSeconds 1: raise it or remove it"
    )
    assert bench.stages()["score 1"]["charged"] == 1


def test_what_has_no_effect_here_is_said_once(bench: Bench) -> None:
    bench.manifest["spec"] |= {"image": "trainer:2", "stages": {"train": {"processesPerWorker": 8}}}
    done = bench.run()
    assert done.returncode == 0
    line = "Without effect on one machine: spec.image, spec.stages.train.processesPerWorker\n"
    assert done.stdout.count(line) == 1


@pytest.mark.parametrize("name", ["curves.json", "manifest.json"])
def test_a_damaged_artifact_costs_its_part_of_the_report(bench: Bench, name: str) -> None:
    bench.run()
    (damaged,) = (bench.workspace / "lab/demo/i1/train").rglob(name)
    damaged.write_text('{"step": [1,')
    bench.manifest["spec"]["iterations"] = 2
    done = bench.run()
    assert done.returncode == 0
    warning = f"warning: not in the report: {damaged} is damaged (no whole JSON): restore it.\n"
    assert done.stderr.count(warning) == 1
    again = bench.run("report", str(bench.workspace))
    assert (again.returncode, again.stderr) == (0, warning)
    assert f"{damaged} is damaged" in (bench.workspace / "report.html").read_text()


def test_after_the_last_retry_the_run_fails_and_the_same_command_tries_again(bench: Bench) -> None:
    bench.faults(generate_1=["crash", "crash", ""])
    failed = bench.run()
    assert failed.returncode == 1
    assert bench.condition("Succeeded") == (
        "False",
        "RetriesExhausted",
        (
            "generate 1 failed 2 times, and no retry is left: RuntimeError: the stand-in was told to crash; "
            "mend the cause, then retry the run"
        ),
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


def test_a_folder_holds_one_run(bench: Bench) -> None:
    bench.run()
    bench.manifest["metadata"]["name"] = "other"
    refused = bench.run()
    assert refused.returncode == 64
    assert "is the run lab/demo, not lab/other: use another --workspace" in refused.stderr


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


def test_a_stage_whose_artifact_was_removed_is_done_again(bench: Bench) -> None:
    """The remedy that a stage names for a damaged artifact."""
    assert bench.run().returncode == 0
    shutil.rmtree(bench.workspace / "lab/demo/i1/score")
    assert bench.run().returncode == 0
    assert bench.start_counts() == dict.fromkeys(STEPS_OF_ONE_ITERATION, 1) | {"score 1": 2}
    assert bench.run().returncode == 0
    assert sum(bench.start_counts().values()) == len(STEPS_OF_ONE_ITERATION) + 1
