"""`make soak`: 1,000 starts in a row and 200 at once, under the leak oracle, with a latency that must not climb; then
SIGKILL at every call of every process in the chain.

A leak that a single test does not show (a kilobyte, a descriptor every hundredth start) shows here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio

import pyrt
from tests import ward
from tests.leakcheck import Oracle, State

# The last quarter may be this much slower than the first: noise of a shared machine, not a climb.
SLOPE = 1.5
# Growth of our own resident memory that is no leak: caches, the allocator's slack. KiB.
SLACK = 8192


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--image", default="host")
    arguments.add_argument("--row", type=int, default=1000)
    arguments.add_argument("--at-once", type=int, default=200)
    options = arguments.parse_args()
    ward.enter()
    with tempfile.TemporaryDirectory(prefix="pyrt-soak-") as name:
        state = make_state(Path(name))
        oracle = Oracle(state, patience=30)
        trio.run(soak, options.image, options.row, options.at_once)
        kill_everywhere(state)
        oracle.check()
    print("nothing is left behind")


def kill_everywhere(state: State) -> None:
    """Every point of ``tests.durable.kill_sweep``, in a program of its own: it forks."""
    for victim in ("engine", "keeper"):
        words = [sys.executable, "-m", "tests.durable.kill_sweep", str(state.root), victim, "all"]
        found = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
        print(f"{victim} killed at {found['killed']} of {found['points']} calls: all survived")


def make_state(folder: Path) -> State:
    state = State(folder / "root", folder / "run", folder / "tmp")
    for variable, path in zip(("PYRT_ROOT", "PYRT_RUN", "TMPDIR"), state, strict=True):
        path.mkdir()
        os.environ[variable] = str(path)
    return state


async def soak(image: str, row: int, at_once: int) -> None:
    async with pyrt.open_engine() as engine:

        async def start() -> float:
            begun = time.perf_counter()
            done = await engine.run(image, ["true"])
            assert done.exit_code == 0, done
            return (time.perf_counter() - begun) * 1000

        for _ in range(min(50, row)):
            await start()
        memory = resident()
        taken = [await start() for _ in range(row)]
        report_row(taken)
        begun = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(start)
        seconds = time.perf_counter() - begun
        print(f"{at_once} at once: {seconds:.2f} s, {at_once / seconds:.0f} a second")
        grown = resident() - memory
        print(f"resident memory: {memory} KiB, grown by {grown} KiB")
        assert grown < SLACK, "the engine's memory grows with the number of starts"


def report_row(taken: list[float]) -> None:
    quarter = max(1, len(taken) // 4)
    first, last = statistics.median(taken[:quarter]), statistics.median(taken[-quarter:])
    slowest = sorted(taken)[len(taken) * 99 // 100]
    print(f"{len(taken)} in a row: median {statistics.median(taken):.2f} ms, 99 % {slowest:.2f} ms")
    print(f"first quarter {first:.2f} ms, last quarter {last:.2f} ms")
    assert last < first * SLOPE, "starts get slower"


def resident() -> int:
    """Our own memory, KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise LookupError("VmRSS")


if __name__ == "__main__":
    main()
