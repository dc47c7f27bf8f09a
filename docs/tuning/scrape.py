"""What a scrape of /metrics costs: python docs/tuning/scrape.py DIR, the workspace of a run that has ended

The run of DIR is taken as often as told, under as many names. It prints the rows of the table in docs/metrics.md.
"""

from __future__ import annotations

import asyncio
import gzip
import sys
import time
from pathlib import Path
from typing import Any

from sppo_operator.exposition import Exposition
from sppo_operator.metrics import Metrics
from sppo_operator.store import RunFile

RUNS = (300, 1000)
ROUNDS = 3
FORMATS = {"text": "text/plain", "OpenMetrics": "application/openmetrics-text; version=1.0.0"}
TICK_SECONDS = 0.005


def main(folder: Path) -> None:
    run = RunFile(folder).read()
    if run is None:
        sys.exit(f"{folder} has no run.yaml: name the workspace of a run that has ended")
    print("| runs | series | processor time, text / OpenMetrics | on the clock | event loop late by at most ", end="")
    print("| text, compressed | memory, at its peak |\n|---|---|---|---|---|---|---|")
    for count in RUNS:
        print(asyncio.run(row(run, count)), flush=True)


async def row(run: dict[str, Any], count: int) -> str:
    runs = [run | {"metadata": run["metadata"] | named(number)} for number in range(count)]
    exposition = Exposition(Metrics(), lambda: runs)
    before = resident_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, proc(5)
    worked: dict[str, list[float]] = {name: [] for name in FORMATS}
    clock, text = [], b""
    lateness = asyncio.create_task(latest())
    for _ in range(ROUNDS):
        for name, accept in FORMATS.items():
            began, cpu = time.monotonic(), time.process_time()
            rendered, _ = await exposition.render(accept)
            worked[name].append(time.process_time() - cpu)
            clock.append(time.monotonic() - began)
            text = rendered if name == "text" else text
            await asyncio.sleep(0)
    peak = resident_mib("VmHWM") - before
    lateness.cancel()
    late = (await asyncio.gather(lateness))[0]
    series = sum(not line.startswith(b"#") for line in text.splitlines())
    cpu_seconds = " / ".join(f"{sum(found) / ROUNDS:.1f} s" for found in worked.values())
    size = f"{len(text) / 1e6:.0f} MB, {len(gzip.compress(text)) / 1e6:.1f} MB"
    clocked = f"{min(clock):.1f} to {max(clock):.1f} s"
    return f"| {count} | {series} | {cpu_seconds} | {clocked} | {1000 * late:.0f} ms | {size} | {peak:.0f} MB |"


def named(number: int) -> dict[str, str]:
    return {"name": f"run-{number:04}", "namespace": "default", "uid": f"uid-{number:04}"}


async def latest() -> float:
    """How late the event loop came back at most, in seconds, until this is cancelled."""
    worst = 0.0
    try:
        while True:
            due = time.monotonic() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            worst = max(worst, time.monotonic() - due)
    except asyncio.CancelledError:
        return worst


def resident_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    [size] = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(size) / 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
