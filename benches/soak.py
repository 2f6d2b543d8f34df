"""`make soak`: 10,000 starts in a row and 500 at once, with pulls and execs among them, by a server whose memory must
stay flat and whose starts must not get slower; then each process of the chain killed at each of its calls and each call
that can fail refused once, for every verb; then long random walks over all verbs. All of it under the leak oracle.

A leak that a single test does not show (a kilobyte, a descriptor every hundredth start) shows here.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests import ward
from tests.durable.sweep import PROGRAM, grounds
from tests.leakcheck import Oracle, State

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
# The last quarter may be this much slower than the first: noise of a shared machine, not a climb.
SLOPE = 1.5
# Growth of the server's resident memory that is no leak: caches, the allocator's slack. KiB.
SLACK = 8192
EXEC_EVERY = 10
PULL_EVERY = 100
PARTS = ("many", "sweep", "model")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all, unless named")
    arguments.add_argument("--row", type=int, default=10_000)
    arguments.add_argument("--at-once", type=int, default=500)
    arguments.add_argument("--walks", type=int, default=100)
    options = arguments.parse_args()
    ward.enter()
    os.environ["PYRT_PYTHON"] = sys.executable
    with tempfile.TemporaryDirectory(prefix="pyrt-soak-") as name:
        folder = Path(name)
        state = make_state(folder)
        oracle = Oracle(state, patience=30)
        parts = options.parts or PARTS
        if "many" in parts:
            with grounds(folder) as ground:
                many(state, ground.registry, options.row, options.at_once)
            for path in state.run.glob("pyrt*"):
                path.unlink()  # Locks and logs, which a server leaves.
        if "sweep" in parts:
            (folder / "sweep").mkdir()
            part("-m", "tests.durable.sweep", str(folder / "sweep"))
        if "model" in parts:
            os.environ["PYRT_MODEL_EXAMPLES"] = str(options.walks)
            part("-m", "pytest", "-q", "tests/durable/test_model.py")
        oracle.check()
    print("nothing is left behind")


def part(*words: str) -> None:
    """A program of its own, which prints what it has found."""
    subprocess.run([sys.executable, *words], check=True, cwd=ROOT)


def make_state(folder: Path) -> State:
    state = State(folder / "root", folder / "run", folder / "tmp")
    for variable, path in zip(("PYRT_ROOT", "PYRT_RUN", "TMPDIR"), state, strict=True):
        path.mkdir(mode=0o700)
        os.environ[variable] = str(path)
    return state


def many(state: State, registry: str, row: int, at_once: int) -> None:
    call("run", "-d", "--name", "standing", "host", "sleep", "100000")
    (lock,) = state.run.glob("*.lock")
    server = int(lock.read_text())
    for number in range(min(200, row)):
        one(number, registry)
    before = resident(server), descriptors(server)
    taken = [one(number, registry) for number in range(row)]
    report_row(taken)
    after_row = resident(server)
    # The first burst takes what so many at once need at their height; the second must find that enough.
    burst(at_once, registry)
    after_burst = resident(server)
    burst(at_once, registry)
    call("rm", "-f", "standing")
    call("rmi", f"{registry}/small:1")
    after = resident(server), descriptors(server)
    print(f"the server, KiB: {before[0]}, {after_row} after the row, {after_burst} and {after[0]} after the bursts")
    print(f"its descriptors: {before[1]} before, {after[1]} after")
    assert call("ps", "-aq") == b""
    end(server)
    assert after_row - before[0] < SLACK, "the server's memory grows with the number of starts"
    assert after[0] - after_burst < SLACK, "the server's memory grows with the number of bursts"
    assert after[1] <= before[1], "the server keeps descriptors"


def burst(at_once: int, registry: str) -> None:
    begun = time.perf_counter()
    words = (("run", "--rm", "host", "true"), ("exec", "standing", "true"))
    clients = [start(*words[number % 2]) for number in range(at_once)]
    clients += [start("pull", "-q", f"{registry}/small:1") for _ in range(8)]
    assert [client.wait() for client in clients] == [0] * len(clients)
    seconds = time.perf_counter() - begun
    print(f"{at_once} at once, with execs and pulls: {seconds:.2f} s, {at_once / seconds:.0f} a second", flush=True)


def one(number: int, registry: str) -> float:
    """A start, in milliseconds from the client's start to its end; now and then an exec or a pull beside it."""
    if number % EXEC_EVERY == 0:
        assert call("exec", "standing", "echo", "hello") == b"hello\n"
    if number % PULL_EVERY == 0:
        call("pull", "-q", f"{registry}/small:1")
        call("rmi", f"{registry}/small:1")
    begun = time.perf_counter()
    call("run", "--rm", "host", "true")
    return (time.perf_counter() - begun) * 1000


def start(*words: str, output: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["pyrt", *words], executable=PROGRAM, stdin=subprocess.DEVNULL, stdout=output)


def call(*words: str) -> bytes:
    with start(*words, output=subprocess.PIPE) as client:
        output, _ = client.communicate()
    assert client.returncode == 0, words
    return output


def report_row(taken: Sequence[float]) -> None:
    quarter = max(1, len(taken) // 4)
    first, last = statistics.median(taken[:quarter]), statistics.median(taken[-quarter:])
    slowest = sorted(taken)[len(taken) * 99 // 100]
    print(f"{len(taken)} in a row: median {statistics.median(taken):.2f} ms, 99 % {slowest:.2f} ms")
    print(f"first quarter {first:.2f} ms, last quarter {last:.2f} ms, ratio {last / first:.2f}", flush=True)
    assert last < first * SLOPE, "starts get slower"


def resident(process: int) -> int:
    """Its memory, KiB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise LookupError("VmRSS")


def descriptors(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def end(process: int) -> None:
    """Ends one that is not our child."""
    pidfd = os.pidfd_open(process)
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    select.select([pidfd], [], [])
    os.close(pidfd)


if __name__ == "__main__":
    main()
