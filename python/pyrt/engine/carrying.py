"""Starting carriers: one process for each side of a copy, ended with whoever waits for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from pyrt import threads
from pyrt.engine.carrier import Report, Task
from pyrt.errors import ContainerError, EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Without `site`, whose files cost more than the copy of a small file: the path is ours.
_PROGRAM: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from pyrt.engine.carrier import main; sys.exit(main(*sys.argv[2:]))"
)
_LARGEST_REPORT: Final = 1 << 16


async def carry(task: Task, root: int, stream: int) -> None:
    """Has a process do the task on the open ``root``, with the tar at ``stream``. Cancelled, it kills the process.

    Raises ContainerError with what went wrong.
    """
    source, report = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            await _run(task, root, stream, report)
        finally:
            os.close(report)
        said = os.read(source, _LARGEST_REPORT)
    finally:
        os.close(source)
    if said:
        found = msgspec.json.decode(said, type=Report)
        raise ContainerError(found.message, hint=found.hint)


async def _run(task: Task, root: int, stream: int, report: int) -> None:
    descriptors = (root, stream, report)
    words = (json.dumps(sys.path), msgspec.json.encode(task).decode(), *map(str, descriptors))
    with threads.wanted():
        process = await trio.run_process(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            capture_stderr=True,
            check=False,
            pass_fds=descriptors,
            # A signal of the terminal is for whoever waits for it.
            start_new_session=True,
            deliver_cancel=_kill,
        )
    if process.returncode and process.stderr:
        last = process.stderr.decode(errors="replace").strip().splitlines()[-1]
        raise EngineError(f"the process that copies files has failed: {last}")


async def _kill(process: trio.Process) -> None:
    process.kill()


async def carry_both(tasks: Sequence[tuple[Task, int]]) -> None:
    """From one place to another: the first writes a tar that the second unpacks. Raises what went wrong first."""
    (pack, source), (unpack, target) = tasks
    reader, writer = os.pipe2(os.O_CLOEXEC)
    failures: list[ContainerError] = []

    async def one(task: Task, root: int, stream: int) -> None:
        try:
            await carry(task, root, stream)
        except ContainerError as error:
            failures.append(error)
        finally:
            # So that the other side sees the end.
            os.close(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, pack, source, writer)
        nursery.start_soon(one, unpack, target, reader)
    if failures:
        raise failures[0]
