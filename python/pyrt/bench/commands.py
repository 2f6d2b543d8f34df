"""Commands of anybody's, timed from their own execve."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyrt.bench.cases import Sample
    from pyrt.bench.ground import Ground

_PATIENCE: Final = 120.0
"""Seconds after which a command is taken to hang."""


class CommandFailed(Exception):
    """It ended with another status than 0, did not end at all, or did not print what was expected."""


def stamped(ground: Ground, words: Callable[[], Sequence[str]], files: Mapping[int, str] | None = None) -> Sample:
    """How a command is measured whose container runs the clock.

    ``ready``: milliseconds from the command's execve to the first instruction of the container's program; ``whole``: to
    the command's end. ``words`` gives the command line of each sample; ``files`` are opened for it for reading.
    """

    async def sample() -> dict[str, float]:
        # Blocks the event loop on purpose: nothing else is to run meanwhile.
        output, ended = run([ground.stamp, *words()], ground.environment, files)
        begun, ready = clocks(output)
        return {"ready": (ready - begun) / 1e6, "whole": (ended - begun) / 1e6}

    return sample


def timed(ground: Ground, words: Sequence[str]) -> float:
    """Milliseconds from the execve of a command to its end, whoever keeps its streams. Raises CommandFailed."""
    with (ground.folder / "said").open("w+b") as said, (ground.folder / "nothing").open("w+b") as nothing:
        # Files of our own: see `run`.
        done = subprocess.run(
            [ground.stamp, *words], stdin=nothing, stdout=said, stderr=said, env=ground.environment, check=False
        )
        ended = time.monotonic_ns()
        said.seek(0)
        begun, _, rest = said.read().partition(b"\n")
        if done.returncode:
            raise CommandFailed(rest.decode(errors="replace").strip())
    return (ended - int(begun)) / 1e6


def clocks(output: bytes) -> tuple[int, int]:
    """The two times that were printed. Raises CommandFailed."""
    lines = output.split()
    if len(lines) != 2 or not all(line.isdigit() for line in lines):
        raise CommandFailed(f"it printed {output[:200]!r} instead of two times")
    return int(lines[0]), int(lines[1])


def run(
    words: Sequence[str], environment: Mapping[str, str], files: Mapping[int, str] | None = None
) -> tuple[bytes, int]:
    """Runs a command to its end; what it printed, and CLOCK_MONOTONIC at the end. Raises CommandFailed."""
    errors = os.memfd_create("errors")
    reader, writer = os.pipe2(os.O_CLOEXEC)
    # At its end at once, and nobody else's: runtimes give what they are handed to the container's user, and this
    # machine's /dev/null is not for them.
    empty, other = os.pipe2(os.O_CLOEXEC)
    os.close(other)
    opened = [(os.POSIX_SPAWN_OPEN, number, path, os.O_RDONLY, 0) for number, path in (files or {}).items()]
    actions = [
        (os.POSIX_SPAWN_DUP2, empty, 0),
        (os.POSIX_SPAWN_DUP2, writer, 1),
        (os.POSIX_SPAWN_DUP2, errors, 2),
        *opened,
    ]
    # By vfork: the size of this process does not matter.
    pid = os.posix_spawn(words[0], [*words], environment, file_actions=actions, setsigdef=[signal.SIGPIPE])
    os.close(writer)
    os.close(empty)
    try:
        output = _read_all(reader)
        status = os.waitpid(pid, 0)[1] if output is not None else _kill(pid)
        ended = time.monotonic_ns()
        if output is None or status:
            said = os.pread(errors, 4096, 0).decode(errors="replace").strip()
            reason = f"it ended with status {os.waitstatus_to_exitcode(status)}"
            raise CommandFailed(
                said or reason if output is not None else f"it did not end in {_PATIENCE:.0f} s: {said}"
            )
    finally:
        os.close(reader)
        os.close(errors)
    return output, ended


def _kill(pid: int) -> int:
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _read_all(reader: int) -> bytes | None:
    """To the end of the file; None if nothing comes any more."""
    waiting = select.poll()
    waiting.register(reader, select.POLLIN)
    output = b""
    while waiting.poll(_PATIENCE * 1000):
        piece = os.read(reader, 65536)
        if not piece:
            return output
        output += piece
    return None
