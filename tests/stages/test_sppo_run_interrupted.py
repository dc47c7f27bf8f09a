"""`sppo run` when it is stopped, killed, started twice, or finds its folder damaged."""

from __future__ import annotations

import os
import signal

import pytest
from bench import DEADLINE_SECONDS, STEPS_OF_ONE_ITERATION, Bench, wait_until


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The content digests of a run that nothing happened to."""
    bench = Bench(tmp_path_factory.mktemp("undisturbed"))
    assert bench.run().returncode == 0
    return bench.digests()


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


def test_command_and_stage_are_stopped_at_once(bench: Bench) -> None:
    command = bench.start_and_hang("train 1")
    command.send_signal(signal.SIGSTOP)  # it sees both signals after both took effect
    for stage in bench.living():
        os.kill(stage, signal.SIGTERM)
    wait_until(lambda: bench.living() == [])
    command.send_signal(signal.SIGTERM)
    command.send_signal(signal.SIGCONT)
    _, error = command.communicate(timeout=DEADLINE_SECONDS)
    assert (command.returncode, error) == (143, "")
    assert bench.condition("Progressing")[:2] == ("False", "Stopped")
    assert bench.run().returncode == 0


def test_a_terminal_that_goes_away_stops_the_run_in_order(bench: Bench) -> None:
    terminal, end = os.openpty()
    bench.faults(train_1=["hang"])
    command = bench.start(stdout=end)
    os.close(end)
    while not (bench.notes / "train 1.hangs").exists():
        assert os.read(terminal, 65536)  # it draws several times a second
    os.close(terminal)  # from here on every write fails with EIO
    command.send_signal(signal.SIGHUP)
    _, error = command.communicate(timeout=DEADLINE_SECONDS)
    assert (command.returncode, error) == (129, "")
    assert (bench.living(), bench.outcomes("train 1")) == ([], ["Suspended"])
    assert bench.condition("Progressing")[:2] == ("False", "Stopped")


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


def test_a_full_disk_is_named_and_stops_the_stages(bench: Bench) -> None:
    command = bench.start_and_hang("prepare")
    (bench.workspace / f".run.yaml.{command.pid}.new").symlink_to("/dev/full")
    os.kill(bench.living()[0], signal.SIGTERM)
    _, error = command.communicate(timeout=DEADLINE_SECONDS)
    assert command.returncode == 74
    assert "cannot be written (No space left on device): free space or mend it" in error
    assert bench.living() == []


def test_a_reader_that_goes_away_ends_the_command(bench: Bench) -> None:
    command = bench.start()
    assert command.stdout is not None
    command.stdout.close()
    assert command.stderr is not None
    assert command.stderr.read() == ""
    assert command.wait(DEADLINE_SECONDS) == 1
    assert bench.living() == []
