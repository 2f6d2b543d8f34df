"""Runs ``pyrt.bench`` on a user's console, in a process of its own: it blocks, and imports what no server needs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import trio

from pyrt import threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrt.cli.console import Console

_END_LIMIT: Final = 20.0
"""Seconds that it may take to clear up when its user is gone."""


async def run_bench(console: Console, words: Sequence[str], *, input: bytes = b"") -> int:
    """`python -m pyrt.bench WORDS` to its end; returns its exit status. Cancelled, it ends the process first."""
    out, err = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    command = [sys.executable, "-u", "-m", "pyrt.bench", *words]
    environment = dict(console.environment)
    try:
        with threads.wanted():
            process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.PIPE,
                stdout=out[1],
                stderr=err[1],
                env=environment,
                cwd=console.directory or None,
            )
    finally:
        os.close(out[1])
        os.close(err[1])
    try:
        await console.relay(output=out[0], error=err[0])
        assert process.stdin is not None
        async with process.stdin:
            await process.stdin.send_all(input)
        status = await process.wait()
    finally:
        await _end(process)
    await console.settle()
    return status if status >= 0 else 128 - status


async def _end(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        if process.returncode is None:
            process.terminate()
            with trio.move_on_after(_END_LIMIT):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
