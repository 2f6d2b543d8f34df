"""Standard input, output and error of a container, seen from our side.

Only our ends are made non-blocking: a pipe has a file description at each end, and what the container holds must
behave as a program expects. A terminal has one description for all who hold its master, so whoever takes it
over finds it non-blocking.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import termios
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, final

import trio

from pyrt import _native
from pyrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable

PIECE: Final = 256 * 1024
"""Bytes read at once: 1.7 GB/s measured, where 64 KiB gives half of it."""
# An unprivileged user may have 16 MiB in pipes (/proc/sys/fs/pipe-user-pages-soft), so a pipe grows only once it
# has been found full.
_DEFAULT_CAPACITY: Final = 64 * 1024
_GROWN_CAPACITY: Final = 1024 * 1024
F_SETPIPE_SZ: Final = 1031


NOBODYS: Final = (-1, -1, -1)
"""Given for the streams of a detached process: its keeper has them."""


class Wanted(NamedTuple):
    """Which standard streams a process is to have."""

    given: tuple[int, int, int] | None = None
    """The caller's own descriptors for them, which stay the caller's; else there are pipes."""
    stdin: bool = True
    """Whether anything is to come by the pipe of its input; else that is at its end."""
    take: Callable[[int, int, int], object] | None = None
    """Is given our ends of the pipes (-1: there is none), and owns them, before the process is started."""


@final
class Stdio:
    """The three descriptors that go to the keeper, and the ends that we keep.

    A context manager that closes them all if its block fails. ``stdin``, ``stdout`` and ``stderr`` are our ends, -1
    where there is none.
    """

    def __init__(self, wanted: Wanted = Wanted()) -> None:  # noqa: B008 - it can't be changed
        self.stdin = self.stdout = self.stderr = -1
        self.terminal = False
        """Whether the container has a terminal, whose master ``stdin`` and ``stdout`` are."""
        self._theirs: list[int] = []
        if wanted.given is not None:
            if wanted.given != NOBODYS:
                _refuse_directories(wanted.given)
            self.theirs = wanted.given
            return
        try:
            stdin, self.stdin = self._pipe()
            if not wanted.stdin:
                # A pipe that nobody writes to: /dev/null of the host would be a file of the host.
                os.close(self.stdin)
                self.stdin = -1
            self._theirs.append(stdin)
            for name in ("stdout", "stderr"):
                ours, theirs = self._pipe()
                setattr(self, name, ours)
                self._theirs.append(theirs)
        except OSError:
            self.close()
            raise
        self.theirs = (self._theirs[0], self._theirs[1], self._theirs[2])
        if wanted.take:
            stdin, stdout, stderr = self.stdin, self.stdout, self.stderr
            self.stdin = self.stdout = self.stderr = -1
            wanted.take(stdin, stdout, stderr)

    @staticmethod
    def _pipe() -> tuple[int, int]:
        return os.pipe2(os.O_CLOEXEC)

    def __enter__(self) -> Stdio:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.close()

    def message(self, plan: _native.Plan, control: int, limit: float | None) -> tuple[bytes, list[int]]:
        """The start message of a process that has the keeper's ends, killed after ``limit`` seconds."""
        return plan.start_message(control, *self.theirs, limit=nanoseconds(limit))

    def late_message(self, command: bytes) -> tuple[bytes, list[int]]:
        """The message that lets a parked container go on, with another command if that is not empty."""
        return _native.stdio_message(command), [*self.theirs]

    def sent(self) -> None:
        """The keeper has its ends: close ours of them."""
        for descriptor in self._theirs:
            os.close(descriptor)
        self._theirs.clear()

    def use_terminal(self, master: int) -> None:
        """The container has a terminal instead: what is written to and read from it goes through its master.

        -1: it has none.
        """
        if master < 0:
            return
        self._close_ours()
        self.terminal = True
        self.stdout = master
        self.stdin = fcntl.fcntl(master, fcntl.F_DUPFD_CLOEXEC, 3)

    def close(self) -> None:
        """Closes every end that is still ours."""
        self.sent()
        self._close_ours()

    def _close_ours(self) -> None:
        for name in ("stdin", "stdout", "stderr"):
            descriptor = getattr(self, name)
            setattr(self, name, -1)
            if descriptor >= 0:
                os.close(descriptor)


def nanoseconds(limit: float | None) -> int:
    """A time limit as keepers count it: 0 for none."""
    return 0 if limit is None else max(1, round(limit * 1e9))


def _refuse_directories(given: tuple[int, int, int]) -> None:
    """A directory of the host in a container leads out of it: /proc/self/fd/0/../.. (CVE-2024-21626)."""
    for name, descriptor in zip(("input", "output", "error"), given, strict=True):
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError as error:
            raise UsageError(f"the standard {name} for a container can't be used: {error.strerror}") from None
        if stat.S_ISDIR(mode):
            raise UsageError(
                f"the standard {name} for a container is a directory", hint="a file, pipe or terminal can be"
            )


class _End:
    """A descriptor that a task may wait for."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._absent = descriptor < 0
        self._waiters = 0
        if descriptor >= 0:
            os.set_blocking(descriptor, False)

    def fileno(self) -> int:
        """The descriptor, or -1 once it is closed."""
        return self._descriptor

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            if self._waiters:
                trio.lowlevel.notify_closing(descriptor)
            os.close(descriptor)

    async def wait(self, direction: Callable[[int], Awaitable[None]]) -> None:
        """Waits with trio.lowlevel's ``wait_readable`` or ``wait_writable``."""
        self._waiters += 1
        try:
            await direction(self._descriptor)
        finally:
            self._waiters -= 1

    async def aclose(self) -> None:
        """Closes it at once."""
        self.close()
        await trio.lowlevel.checkpoint()


@final
class Reader(_End, trio.abc.ReceiveStream):
    """What a container writes. A terminal whose last process has ended is at its end of file."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, at most ``max_bytes`` (256 KiB); b"" at the end. Raises trio.ClosedResourceError."""
        await trio.lowlevel.checkpoint()
        while True:
            if self._absent:
                return b""
            if self._descriptor < 0:
                raise trio.ClosedResourceError
            piece = self.read_now(max_bytes or PIECE)
            if piece is not None:
                return piece
            await self.wait(trio.lowlevel.wait_readable)

    def read_now(self, size: int) -> bytes | None:
        """What is there; b"" at the end; None if there is nothing yet."""
        try:
            piece = os.read(self._descriptor, size)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.EIO:
                return b""
            raise
        if len(piece) == _DEFAULT_CAPACITY:
            self._grow()
        return piece

    def _grow(self) -> None:
        try:
            fcntl.fcntl(self._descriptor, F_SETPIPE_SZ, _GROWN_CAPACITY)
        except OSError:
            pass  # Over the user's share, or no pipe: it works as it is.


@final
class Writer(_End, trio.abc.SendStream):
    """What a container reads. Closing it is the end of file, but for a terminal."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Writes all of ``data``; raises trio.BrokenResourceError when nobody can read it any more."""
        await trio.lowlevel.checkpoint()
        rest = memoryview(data).cast("B")
        while rest:
            if self._descriptor < 0:
                raise trio.ClosedResourceError
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                await self.wait(trio.lowlevel.wait_writable)
            except OSError as error:
                raise trio.BrokenResourceError(f"the container does not read: {error.strerror}") from error

    async def wait_send_all_might_not_block(self) -> None:
        """Returns when something can be written."""
        await trio.lowlevel.checkpoint()
        if self._descriptor < 0:
            raise trio.ClosedResourceError
        await self.wait(trio.lowlevel.wait_writable)


@final
class Capture:
    """Keeps the first ``limit`` bytes of a stream and reads on, so that its writer never has to wait."""

    def __init__(self, reader: Reader, limit: int) -> None:
        self._reader = reader
        self._pieces: list[bytes] = []
        self._room = limit
        self.lost = 0
        self.ended = reader.fileno() < 0

    async def run(self) -> None:
        """Returns at the end of the stream."""
        while not self.ended:
            await self._reader.wait(trio.lowlevel.wait_readable)
            piece = self._reader.read_now(PIECE)
            if piece is not None:
                self._take(piece)

    def drain(self) -> None:
        """Takes what is there just now and does not wait for more: its writer has ended, others may hold the pipe."""
        waiting = 0 if self.ended else _waiting(self._reader.fileno())
        while waiting > 0 and not self.ended:
            piece = self._reader.read_now(min(waiting, PIECE))
            if piece is None:
                return
            waiting -= len(piece)
            self._take(piece)

    def value(self) -> bytes:
        """What was kept."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def _take(self, piece: bytes) -> None:
        if not piece:
            self.ended = True
            return
        kept = piece[: self._room]
        self.lost += len(piece) - len(kept)
        self._room -= len(kept)
        if kept:
            self._pieces.append(kept)


async def feed(writer: Writer, data: bytes) -> None:
    """Writes ``data`` and the end of file. A reader that wants less of it is no error."""
    try:
        await writer.send_all(data)
    except trio.BrokenResourceError:
        pass
    finally:
        writer.close()


def resize(terminal: int, rows: int, columns: int) -> None:
    """Gives a terminal another size; what runs in it gets SIGWINCH."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _waiting(descriptor: int) -> int:
    """How many bytes there are at most.

    A terminal counts only what has got through to its reader, and that is done, at the latest, by whoever reads.
    """
    if os.isatty(descriptor):
        return PIECE
    size: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0"))[0]
    return size
