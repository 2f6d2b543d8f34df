"""Logs, written and read: `python -m benches.logs [--mebibytes N] [--read N]`.

Written: what a container that only writes is held up by its log. `yes | head -c N` in a detached container, from its
start to its recorded exit: two bytes a line, the worst that a log of lines can meet. Against Docker's two file logs,
with the same limits of size.

Read: `pyrt logs` of one file of so many mebibytes, lines of 100 bytes, into a pipe that is emptied at once, beside
`cat` of the same file.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

import pyrt
from pyrt.bench.ground import prepared, serving
from tests.services import Unavailable, docker_daemon

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrt.bench.ground import Ground
    from tests.services import Docker

ROUNDS: Final = 5
_PIECE: Final = 1 << 20


def command(mebibytes: int) -> list[str]:
    return ["sh", "-c", f"yes | head -c {mebibytes << 20}"]


def report(name: str, mebibytes: int, seconds: float) -> None:
    print(f"{name:20} {mebibytes / seconds:8.1f} MB/s   {mebibytes} MiB in {seconds:.2f} s", flush=True)


async def pyrt_log(folder: Path, mebibytes: int) -> None:
    async with pyrt.open_engine(folder / "root", run_dir=folder / "run") as engine:
        for name, log in (("pyrt", pyrt.Log()), ("pyrt, no log", pyrt.Log(files=0))):
            begun = time.monotonic()
            options = pyrt.RunOptions(command=tuple(command(mebibytes)))
            record = await engine.run_detached("host", options, pyrt.Lasting(log=log))
            status = await engine.wait(record.id)
            report(name, mebibytes, time.monotonic() - begun)
            assert (status.code, status.lost_output) == (0, 0)
            await engine.remove(record.id)


def docker_log(docker: Docker, folder: Path, mebibytes: int) -> None:
    root = folder / "rootfs"
    (root / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for name in ("sh", "yes", "head"):
        (root / "bin" / name).symlink_to("busybox")
    archive = folder / "rootfs.tar"
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
    docker("import", archive, "box")
    limits = ("--log-opt", "max-size=20m", "--log-opt", "max-file=5")
    for driver in ("json-file", "local"):
        begun = time.monotonic()
        identifier = docker(
            "run", "-d", "--network=none", f"--log-driver={driver}", *limits, "box", *command(mebibytes)
        )
        docker("wait", identifier.strip())
        report(f"docker, {driver}", mebibytes, time.monotonic() - begun)
        docker("rm", identifier.strip())


def reading(mebibytes: int) -> None:
    with prepared(layers=1) as ground:
        container, log = trio.run(written, ground, mebibytes)
        size = log.stat().st_size
        with serving(ground) as client:
            ways = {"pyrt logs": [client, "logs", container], "cat": ["cat", str(log)]}
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(ROUNDS):
                for name, words in ways.items():
                    taken[name].append(into_a_pipe(words, ground))
        for name, seconds in taken.items():
            middle = statistics.median(seconds)
            print(f"{name:20} {size / middle / 1e6:8.0f} MB/s   {size / 2**20:.0f} MiB of log in {middle:.2f} s")


async def written(ground: Ground, mebibytes: int) -> tuple[str, Path]:
    """A container that has ended, and its log."""
    async with pyrt.open_engine(ground.root, run_dir=ground.run) as engine:
        options = pyrt.RunOptions(command=("sh", "-c", f"yes {'x' * 99} | head -c {mebibytes << 20}"))
        record = await engine.run_detached("host", options, pyrt.Lasting(log=pyrt.Log(size=1 << 40, files=1)))
        assert (await engine.wait(record.id)).lost_output == 0
        return record.id, Path(engine.layout.folder(record.id), "log")


def into_a_pipe(words: Sequence[str], ground: Ground) -> float:
    """Seconds from a command's start to the end of what it writes, whose reader does nothing with it."""
    with open("/dev/null", "wb", 0) as nowhere:
        begun = time.monotonic()
        with subprocess.Popen(words, stdout=subprocess.PIPE, env=ground.environment) as command:
            assert command.stdout is not None
            while os.splice(command.stdout.fileno(), nowhere.fileno(), _PIECE):
                pass
        assert command.returncode == 0
        return time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=64)
    parser.add_argument("--read", type=int, default=1024)
    options = parser.parse_args()
    reading(options.read)
    with tempfile.TemporaryDirectory(prefix="pyrt-logs-") as name:
        trio.run(pyrt_log, Path(name), options.mebibytes)
        try:
            with docker_daemon() as docker:
                docker_log(docker, Path(name), options.mebibytes)
        except Unavailable as reason:
            print(reason)


if __name__ == "__main__":
    main()
