"""What a terminal gets: drawn in place, left as it was, and usable by programs that are no terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path

import pytest
from bench import STANDIN, Bench, wait_until

HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"
SECONDS = 60.0


class Screen:
    """A command that believes to run in a terminal, and all that it wrote there."""

    def __init__(self, bench: Bench, *arguments: str, columns: int = 100, **environment: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(columns)
        path = os.pathsep.join([str(STANDIN), os.environ.get("PYTHONPATH", "")])
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sppo_operator", *arguments],
            env=kept | {"PYTHONPATH": path, "SPPO_STANDIN": str(bench.notes), "TERM": "xterm"} | environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.written = b""

    def resize(self, columns: int) -> None:
        ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))

    def until(self, pattern: bytes) -> None:
        """Read until it was written, from here on."""
        first, deadline = len(self.written), time.monotonic() + SECONDS
        while not re.search(pattern, self.written[first:], re.DOTALL):
            assert time.monotonic() < deadline, self.written
            assert self._read(), self.written

    def end(self) -> int:
        while self._read():
            pass
        return self.process.wait(SECONDS)

    def _read(self) -> bool:
        if not select.select([self.master], [], [], SECONDS)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            return False
        self.written += data
        return bool(data)


@contextmanager
def screen(bench: Bench, *arguments: str, columns: int = 100, **environment: str) -> Iterator[Screen]:
    shown = Screen(bench, *arguments, columns=columns, **environment)
    try:
        yield shown
    finally:
        shown.process.kill()
        shown.process.wait()
        os.close(shown.master)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["INT", "TERM", "HUP"],
)
def test_a_watch_draws_in_place_follows_the_size_and_leaves_a_clean_terminal(
    number: signal.Signals, status: int, bench: Bench
) -> None:
    bench.start_and_hang("train 1")
    with screen(bench, "watch", str(bench.workspace)) as shown:
        shown.until(rb"train 1")
        assert HIDE in shown.written
        shown.resize(60)
        shown.until(rb"\x1b\[2J.*train 1")
        last = shown.written[shown.written.rindex(b"\x1b[2J") :].decode()
        assert max(map(len, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last).replace("\r", "\n").splitlines())) <= 60
        shown.process.send_signal(number)
        assert shown.end() == status
        assert b"Traceback" not in shown.written
        assert shown.written.rindex(SHOW) > shown.written.rindex(HIDE)
        assert re.search(rb"(\r\x1b\[1A\x1b\[2K|\x1b\[1A\x1b\[2K)+$", shown.written)


def test_a_run_and_its_watch_look_the_same(bench: Bench) -> None:
    bench.start_and_hang("train 1").kill()
    wait_until(lambda: bench.living() == [])
    bench.faults(train_1=["", "hang"])
    with screen(bench, "run", str(bench.file), "--workspace", str(bench.workspace)) as run:
        wait_until((bench.notes / "train 1.hangs").exists)
        run.until(rb"lab/demo.*Training")
        with screen(bench, "watch", str(bench.workspace)) as watch:
            watch.until(rb"lab/demo.*train 1")
            heads = [re.findall(rb"lab/demo[^\r\n]*iteration 1/1", shown.written)[-1] for shown in (run, watch)]
    assert heads[0] == heads[1]


@pytest.mark.parametrize(
    ("environment", "plain"),
    [({"TERM": "dumb"}, True), ({"NO_COLOR": "1"}, False), ({}, False)],
    ids=["dumb terminal", "no colour", "xterm"],
)
def test_terminals_get_what_they_can_show(environment: dict[str, str], plain: bool, bench: Bench) -> None:
    bench.start_and_hang("train 1")
    with screen(bench, "watch", str(bench.workspace), **environment) as shown:
        shown.until(rb"lab/demo.*(train 1|Training)")
        shown.process.send_signal(signal.SIGINT)
        shown.end()
        assert (b"\x1b[" in shown.written) != plain
        assert (b"\x1b[1;36m" in shown.written) == (not environment)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_encoding_can_show_everything(encoding: str, bench: Bench) -> None:
    bench.faults(score_1=["user"])
    bench.run()
    command = [sys.executable, "-m", "sppo_operator", "describe", str(bench.workspace)]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    mark = "✗" if encoding == "utf-8" else "x"
    assert re.search(rf"{mark}\s+score 1\s+1\s+UserFault\s+65", done.stdout.decode(encoding))
