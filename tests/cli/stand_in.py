"""A server whose engine runs commands on this machine, in no container: the command's own tests are about what
flows between a terminal and a process, and need neither root nor an image for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from pyrt.cli.main import main
from pyrt.engine.pipes import Reader, Writer
from pyrt.engine.results import ExitStatus, Verdict
from pyrt.errors import CommandNotFound, ImageNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pyrt.runtime.options import RunOptions


class StandIn:
    """A process of this machine, with what ``follow`` needs of a container."""

    def __init__(self, child: subprocess.Popen[bytes], stdin: int, stdout: int, stderr: int) -> None:
        self.id = f"{child.pid:064x}"
        self.stdin, self.stdout, self.stderr = Writer(stdin), Reader(stdout), Reader(stderr)
        self._child = child
        self._ended = trio.Event()
        self._status: ExitStatus | None = None

    async def supervise(self) -> None:
        code = await trio.to_thread.run_sync(self._child.wait)
        verdict = Verdict.EXITED if code >= 0 else Verdict.SIGNALED
        self._status = ExitStatus(verdict=verdict, code=code if code >= 0 else None, signal=-code if code < 0 else None)
        self._ended.set()

    async def wait(self) -> ExitStatus:
        await self._ended.wait()
        assert self._status
        return self._status

    async def kill(self, number: int) -> None:
        await trio.lowlevel.checkpoint()
        self._child.send_signal(number)

    async def destroy(self, cause: str) -> None:
        self._child.kill()
        with trio.CancelScope(shield=True):
            await self._ended.wait()
        self.close_streams()

    def close_streams(self) -> None:
        for end in (self.stdin, self.stdout, self.stderr):
            end.close()


class StandInEngine:
    """As much of ``Engine`` as ``pyrt run host`` needs."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def find_image(self, name: str) -> Any:
        raise ImageNotFound(f"no image {name}")

    async def images(self) -> list[Any]:
        """Never comes to an end, as a slow registry might."""
        Path(os.environ["PYRT_RUN"], "waits").touch()  # noqa: ASYNC240
        await trio.sleep_forever()

    def has_work(self) -> bool:
        return False

    def containers(self) -> list[Any]:
        return []

    async def start(
        self,
        image: str,
        options: RunOptions,
        *,
        wants_stdin: bool,
        take_ends: Callable[[int, int, int], object] | None,
        keep: bool,
        asked: str,
        cause: str,
        brief: bool,
    ) -> StandIn:
        await trio.lowlevel.checkpoint()
        environment = {**os.environ, **dict(options.env)}
        try:
            if options.tty:
                container = _on_terminal(options, environment)
            else:
                container = _on_pipes(options, environment, take_ends, wants_stdin=wants_stdin)
        except FileNotFoundError:
            raise CommandNotFound(f"{options.command[0]} is not there", hint="look for it") from None
        self._nursery.start_soon(container.supervise)
        return container


def _on_terminal(options: RunOptions, environment: dict[str, str]) -> StandIn:
    master, slave = pty.openpty()
    size = struct.pack("HHHH", options.rows or 0, options.columns or 0, 0, 0)
    fcntl.ioctl(master, termios.TIOCSWINSZ, size)

    def own_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    child = subprocess.Popen(
        options.command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
        preexec_fn=own_terminal,
    )
    os.close(slave)
    return StandIn(child, os.dup(master), master, -1)


def _on_pipes(
    options: RunOptions,
    environment: dict[str, str],
    take_ends: Callable[[int, int, int], object] | None,
    *,
    wants_stdin: bool,
) -> StandIn:
    (stdin, our_stdin), (our_stdout, stdout), (our_stderr, stderr) = (os.pipe2(os.O_CLOEXEC) for _ in range(3))
    if not wants_stdin:
        os.close(our_stdin)
        our_stdin = -1
    ours = our_stdin, our_stdout, our_stderr
    if take_ends:
        take_ends(*ours)
        ours = -1, -1, -1
    try:
        child = subprocess.Popen(
            options.command, stdin=stdin, stdout=stdout, stderr=stderr, env=environment, start_new_session=True
        )
    finally:
        for descriptor in (stdin, stdout, stderr):
            os.close(descriptor)
    return StandIn(child, *ours)


@contextlib.asynccontextmanager
async def open_stand_in() -> AsyncIterator[Any]:
    async with trio.open_nursery() as nursery:
        yield StandInEngine(nursery)


if __name__ == "__main__":
    # As the client calls a Python: -m pyrt ARGUMENT ...
    sys.exit(main(sys.argv[3:], open_stand_in))
