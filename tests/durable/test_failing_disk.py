"""Disks that are full or broken, under a keeper and under the journal: the container goes on, and its end is told."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from pyrt.engine.lasting import Lasting, Log
from pyrt.engine.results import Verdict
from pyrt.engine.states import LIVE
from pyrt.engine.states import State as Life
from tests.durable.conftest import PATIENCE, logged, remove_all, shell
from tests.programs import parent_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrt.engine.engine import Engine
    from tests.conftest import OpenEngine
    from tests.leakcheck import State

pytestmark = pytest.mark.root

# On a signal: so that what the disk does is arranged first.
WRITE = "trap 'seq 1000; exit 3' USR1; while :; do sleep 0.01; done"


@contextmanager
def failing(process: int, *faults: str) -> Iterator[None]:
    """System calls of a process fail, as strace's inject has it: "fsync:error=EIO"."""
    words = [word for fault in faults for word in ("-e", f"inject={fault}")]
    names = ",".join(fault.partition(":")[0] for fault in faults)
    command = ["strace", "-p", str(process), "-o", "/dev/null", "-e", f"trace={names}", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        try:
            yield
        finally:
            tracer.terminate()


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
async def test_a_log_that_can_not_be_written_blocks_nobody(engine: Engine, error: str) -> None:
    record = await engine.run_detached("host", shell(WRITE))
    with failing(parent_of(record.pid), f"write:error={error}"):
        await engine.kill(record.id, "USR1")
        with trio.fail_after(PATIENCE):
            status = await engine.wait(record.id)
            # Nor could the exit be written: the keeper leaves once it is in the journal.
            await engine.live[record.id].left.wait() if record.id in engine.live else None
    assert (status.verdict, status.code) == (Verdict.EXITED, 3)
    assert status.lost_output == len("".join(f"{number}\n" for number in range(1, 1001)))
    assert logged(engine, record.id) == b""


@pytest.mark.parametrize("fault", ["fsync:error=EIO", "renameat:error=ENOSPC", "openat:error=EMFILE"])
async def test_an_exit_that_can_not_be_written_is_kept_for_the_next_engine(opened: OpenEngine, fault: str) -> None:
    async with opened() as engine:
        record = await engine.run_detached("host", shell(WRITE))
        keeper = parent_of(record.pid)
        pidfds = os.pidfd_open(record.pid), os.pidfd_open(keeper)
    with failing(keeper, fault):
        os.kill(record.pid, 10)
        with trio.fail_after(PATIENCE):
            await trio.lowlevel.wait_readable(pidfds[0])
            async with opened() as engine:
                status = await engine.wait(record.id)
                assert (status.verdict, status.code) == (Verdict.EXITED, 3)
                await trio.lowlevel.wait_readable(pidfds[1])
                await remove_all(engine)
    for pidfd in pidfds:
        os.close(pidfd)


async def test_an_exit_is_written_once_the_disk_takes_it(opened: OpenEngine) -> None:
    async with opened() as engine:
        record = await engine.run_detached("host", shell(WRITE))
        keeper = parent_of(record.pid)
        pidfd = os.pidfd_open(keeper)
    with failing(keeper, "fsync:error=EIO:when=1..4"):
        os.kill(record.pid, 10)
        with trio.fail_after(PATIENCE):
            await trio.lowlevel.wait_readable(pidfd)
    os.close(pidfd)
    async with opened() as engine:
        assert (await engine.wait(record.id)).code == 3
        await remove_all(engine)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 8 MiB in the place of a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "small", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


async def test_a_full_disk_stops_nobody_and_is_made_good(opened: OpenEngine, state: State) -> None:
    with small_disk(state.root):
        async with opened() as engine:
            lasting = Lasting(log=Log(size=64 * 1024 * 1024, files=1))
            record = await engine.run_detached("host", shell(f"seq 400000; {WRITE}"), lasting)
            with trio.fail_after(PATIENCE):
                while await full(state.root) > 64 * 1024:  # noqa: ASYNC110 - a disk tells nobody
                    await trio.sleep(0.01)
                await engine.kill(record.id, "KILL")
                status = await engine.wait(record.id)
            assert status.signal == 9
            # The space that it takes; the keeper may hold it open until the end is recorded.
            os.truncate(Path(engine.layout.folder(record.id), "log"), 0)
            await engine.pay()
            after = engine.inspect(record.id)
            assert after.state not in LIVE
            assert after.state is Life.EXITED
            again = await engine.run_detached("host", shell("exit 5"))
            assert (await engine.wait(again.id)).code == 5
            await remove_all(engine)


async def full(folder: Path) -> int:
    """Bytes that are free."""
    await trio.lowlevel.checkpoint()
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
