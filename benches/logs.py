"""What a container that only writes is held up by its log: `python -m benches.logs [--mebibytes N]`.

`yes | head -c N` in a detached container, from its start to its recorded exit: two bytes a line, the worst that a log
of lines can meet. Against Docker's two file logs, with the same limits of size.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import trio

import pyrt
from tests.services import Unavailable, docker_daemon

if TYPE_CHECKING:
    from tests.services import Docker


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pyrt-logs-") as name:
        trio.run(pyrt_log, Path(name), options.mebibytes)
        try:
            with docker_daemon() as docker:
                docker_log(docker, Path(name), options.mebibytes)
        except Unavailable as reason:
            print(reason)


if __name__ == "__main__":
    main()
