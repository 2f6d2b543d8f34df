"""A program that starts containers with something on its back: `python -m benches.starter --ballast 500 --threads 16`.

For each line on its standard input it starts one and prints, as JSON, the milliseconds that it took: so that several
such programs can be measured in turn. State folders are those of the environment; the image is there already.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec
import trio

import pyrt
from pyrt.bench.ground import CLOCK, IDLE

_MEBIBYTE = 1 << 20
_MS_BIND = 4096
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--image", required=True)
    arguments.add_argument(
        "--ballast", type=int, default=0, metavar="MIB", help="memory that it holds, and has written to"
    )
    arguments.add_argument("--threads", type=int, default=0, help="threads that wait for the end")
    arguments.add_argument("--mounts", type=int, default=0, help="mounts of its own namespace, at least")
    arguments.add_argument("--alive", type=int, default=0, help="containers that it has started and that do nothing")
    options = arguments.parse_args()
    ballast = carry(options.ballast)
    over = threading.Event()
    for _ in range(options.threads):
        threading.Thread(target=over.wait, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="pyrt-mounts-") as folder:
        count = fill_mounts(Path(folder), options.mounts)
        try:
            trio.run(serve, options.image, options.alive)
        finally:
            empty_mounts(Path(folder), count)
    over.set()
    del ballast


def carry(mebibytes: int) -> mmap.mmap | None:
    """Memory that is really there: each page is written to."""
    if not mebibytes:
        return None
    memory = mmap.mmap(-1, mebibytes * _MEBIBYTE)
    for page in range(0, len(memory), mmap.PAGESIZE):
        memory[page] = 1
    return memory


def fill_mounts(folder: Path, wanted: int) -> int:
    """Bind mounts until there are so many; returns how many it made."""
    missing = max(0, wanted - len(Path("/proc/self/mountinfo").read_text().splitlines()))
    for number in range(missing):
        place = folder / str(number)
        place.mkdir()
        if _libc.mount(bytes(place), bytes(place), None, _MS_BIND, None):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(place))
    return missing


def empty_mounts(folder: Path, count: int) -> None:
    for number in range(count):
        _libc.umount2(bytes(folder / str(number)), 0)


async def serve(image: str, alive: int) -> None:
    async with pyrt.open_engine(warm=0) as engine, trio.open_nursery() as nursery:
        for _ in range(alive):
            await nursery.start(keep_one, engine, image)
        await engine.settled()
        print("ready", flush=True)
        # Blocks the event loop on purpose: only what was asked for is to run, and all of it before the answer.
        while sys.stdin.readline():
            print(await start(engine, image), flush=True)
        nursery.cancel_scope.cancel()


async def keep_one(engine: pyrt.Engine, image: str, task_status: trio.TaskStatus[None]) -> None:
    async with engine.open_container(image, [IDLE]):
        task_status.started()
        await trio.sleep_forever()


async def start(engine: pyrt.Engine, image: str) -> str:
    begun = time.monotonic_ns()
    done = await engine.run(image, [CLOCK])
    ended = time.monotonic_ns()
    figures = {"ready": (int(done.stdout) - begun) / 1e6, "whole": (ended - begun) / 1e6}
    await engine.settled()
    return msgspec.json.encode(figures).decode()


if __name__ == "__main__":
    main()
