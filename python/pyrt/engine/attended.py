"""What a container and a process that joined one have in common, as their users see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import trio

from pyrt.engine.pipes import Capture, Reader, Writer, feed, resize
from pyrt.errors import EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyrt.engine.pipes import Stdio
    from pyrt.engine.process import Process
    from pyrt.engine.results import ExitStatus, Timing


class Output(NamedTuple):
    """The first bytes of both streams, how many more there were, and how it ended."""

    stdout: bytes
    stderr: bytes
    lost: int
    status: ExitStatus


class Attended:
    """A running process with its standard streams.

    ``stdin`` is a trio.abc.SendStream, ``stdout`` and ``stderr`` are trio.abc.ReceiveStreams: iterate over them. With a
    terminal all it writes comes from ``stdout``, and ``stderr`` is empty. Where the caller gave descriptors of
    its own, the streams are empty and ``stdin`` is closed.
    """

    def __init__(self, id: str, process: Process, stdio: Stdio, timing: Timing) -> None:
        self.id = id
        """64 hexadecimal digits."""
        self.timing = timing
        """What the steps of its start took."""
        self._process = process
        self.stdin = Writer(stdio.stdin)
        self.stdout = Reader(stdio.stdout)
        self.stderr = Reader(stdio.stderr)
        self._terminal = stdio.terminal
        self.left = trio.Event()
        """Set when the engine has nothing more to do with it: neither process, nor cgroup, nor mount is there."""

    @property
    def pid(self) -> int:
        """Its process id in the host's pid namespace."""
        return self._process.pid

    @property
    def pidfd(self) -> int:
        """Its pidfd, which stays ours; -1 once it has ended and been cleaned up."""
        return self._process.pidfd

    @property
    def status(self) -> ExitStatus | None:
        """How it ended; None while it runs."""
        return self._process.status

    @property
    def released(self) -> bool:
        """It runs on without this engine."""
        return self._process.released

    @property
    def cause(self) -> str:
        """On whose behalf pyrt signalled it last; "" if it never did."""
        return self._process.cause

    def signal(self, number: int, cause: str) -> bool:
        """Sends a signal; False if it has ended already."""
        return self._process.signal(number, cause)

    async def attend(
        self, record: Callable[[ExitStatus], Awaitable[ExitStatus]], lives_on: Callable[[], Awaitable[object]]
    ) -> None:
        """The engine's task: sees it to its end; see ``Process.attend``."""
        await self._process.attend(record, lives_on)
        self._process.close()

    def abandon(self) -> None:
        """Closes the way to its keeper, which kills it then, if that can be done at all."""
        self._process.close()

    def release(self) -> None:
        """Lets it run on without this engine, if it is detached."""
        self._process.release()

    def forget(self) -> None:
        """After a fork, in the child: lets go of the way to its keeper."""
        self._process.forget()

    async def wait(self) -> ExitStatus:
        """Waits for its end."""
        await self._process.ended.wait()
        if self._process.status is None:
            raise EngineError("the engine was closed, and the container runs on")
        return self._process.status

    async def over(self) -> None:
        """Waits until it has ended, or this engine has let go of it."""
        await self._process.ended.wait()

    async def communicate(self, stdin: bytes = b"", *, max_output: int) -> Output:
        """Writes ``stdin``, reads both streams to their ends or until the process has ended, and waits for it.

        Keeps ``max_output`` bytes of each stream; the rest is read and thrown away. What processes that outlive it
        still write is not waited for. Of what ends at once all is read at its end: pipes have room for it, and three
        tasks that wait for them cost as much as all else that is done for its end.
        """
        out, err = Capture(self.stdout, max_output), Capture(self.stderr, max_output)
        if not stdin:
            self.stdin.close()
            await self._process.met.wait()
        if self._process.status is None:
            await self._converse(stdin, out, err)
        status = self._process.status or await self.wait()
        for capture in (out, err):
            capture.drain()
        return Output(out.value(), err.value(), out.lost + err.lost, status)

    async def _converse(self, stdin: bytes, out: Capture, err: Capture) -> None:
        """Writes and reads until there is nothing more to read, or the process has ended."""
        async with trio.open_nursery() as nursery:
            self._process.at_end = nursery.cancel_scope.cancel
            if stdin:
                nursery.start_soon(feed, self.stdin, stdin)
            nursery.start_soon(err.run)
            if self._process.status is None:
                await out.run()
            else:
                nursery.cancel_scope.cancel()

    def resize(self, rows: int, columns: int) -> None:
        """Gives its terminal another size. Raises UsageError if it has none."""
        if not self._terminal or self.stdout.fileno() < 0:
            raise UsageError("there is no terminal to resize")
        resize(self.stdout.fileno(), rows, columns)

    async def destroy(self, cause: str = "destroy") -> None:
        """Kills it if it runs, waits for the end of the clean-up, and closes its streams. Is not cancelled."""
        try:
            await self._process.kill(cause)
        finally:
            self.close_streams()

    def close_streams(self) -> None:
        """Closes our ends of its standard streams."""
        for end in (self.stdin, self.stdout, self.stderr):
            end.close()
