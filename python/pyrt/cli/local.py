"""The console of this very process: ``python -m pyrt VERB``, without a server and without the native client.

Here Python copies what flows between the user and a container, in threads: slower, and otherwise the same.
"""

from __future__ import annotations

import fcntl
import os
import signal
import termios
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from pyrt.cli.console import STDERR, STDIN, STDOUT, Console
from pyrt.cli.terminal import Mode, raw_mode_of, restore
from pyrt.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_PIECE: Final = 256 << 10
_FORWARDED: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTERM,
)
_OWN: Final = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)


class LocalConsole(Console):
    """This process's descriptors 0 to 2, environment, directory and signals."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__()
        self.environment = dict(os.environ)
        self.directory = _directory()
        self.process = os.getpid()
        self.terminals = os.isatty(STDIN), os.isatty(STDOUT), os.isatty(STDERR)
        self.rows, self.columns = 24, 80
        self.ended_by = 0
        """The signal that ended the verb, or 0."""
        self.verb = trio.CancelScope()
        self._nursery = nursery
        self._flowing = 0
        self._settled = trio.Event()
        self._master: int | None = None
        self._usual_mode: Mode | None = None
        self._read_size()

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[LocalConsole]:
        """The console, for the time of the block."""
        async with trio.open_nursery() as nursery:
            console = cls(nursery)
            nursery.start_soon(console._listen)
            try:
                yield console
            finally:
                console._leave_raw_mode()
            await console.settle()
            nursery.cancel_scope.cancel()

    async def write(self, stream: int, data: bytes) -> None:
        await in_thread(_write_all, stream, data)

    async def relay(self, *, input: int | None = None, output: int | None = None, error: int | None = None) -> None:
        if input is not None:
            self._nursery.start_soon(self._copy, STDIN, input, input)
        for source, sink in ((output, STDOUT), (error, STDERR)):
            if source is not None:
                self._flowing += 1
                self._nursery.start_soon(self._copy_output, source, sink)

    async def relay_terminal(self, master: int, *, keys: bool) -> None:
        self._master = master
        self._resize()
        if keys:
            if self.terminals[STDIN]:
                self._usual_mode = termios.tcgetattr(STDIN)
                self._enter_raw_mode()
            self._nursery.start_soon(self._copy, STDIN, os.dup(master), None)
        self._flowing += 1
        self._nursery.start_soon(self._copy_output, master, STDOUT)

    async def settle(self) -> None:
        while self._flowing:
            await self._settled.wait()

    async def input_file(self) -> int:
        return os.dup(STDIN)

    def start_soon(self, work: Callable[..., Awaitable[object]], *arguments: object) -> None:
        self._nursery.start_soon(work, *arguments)

    # ---- what flows ----

    async def _copy_output(self, source: int, sink: int) -> None:
        try:
            await self._copy(source, sink, source)
        finally:
            self._flowing -= 1
            self._settled.set()
            self._settled = trio.Event()

    async def _copy(self, source: int, sink: int, closed: int | None) -> None:
        """Copies to the end, then closes ``closed``. A thread that still reads when all is over is left behind."""
        if closed is not None:
            # The engine has made its copy of this end non-blocking, and they share the flag; threads may wait.
            os.set_blocking(closed, True)
        try:
            await in_thread(_copy_all, source, sink, abandon_on_cancel=True)
        finally:
            if closed is not None:
                os.close(closed)

    # ---- terminal and signals ----

    async def _listen(self) -> None:
        ours = [number for number in _FORWARDED if signal.getsignal(number) != signal.SIG_IGN]
        with trio.open_signal_receiver(*ours, *_OWN) as numbers:
            async for number in numbers:
                self._receive(number)

    def _receive(self, number: int) -> None:
        if number == signal.SIGWINCH:
            self._read_size()
            self._resize()
        elif number == signal.SIGTSTP:
            self._leave_raw_mode()
            os.kill(os.getpid(), signal.SIGSTOP)
        elif number == signal.SIGCONT:
            self._enter_raw_mode()
        elif not self.deliver(number):
            self.ended_by = number
            self.verb.cancel()

    def _read_size(self) -> None:
        for number in (STDOUT, STDIN, STDERR):
            if self.terminals[number]:
                columns, rows = os.get_terminal_size(number)
                self.take_size(rows, columns)
                return

    def _resize(self) -> None:
        if self._master is not None:
            size = self.rows.to_bytes(2, "little") + self.columns.to_bytes(2, "little") + bytes(4)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def _enter_raw_mode(self) -> None:
        if self._usual_mode is not None and os.tcgetpgrp(STDIN) == os.getpgrp():
            termios.tcsetattr(STDIN, termios.TCSANOW, raw_mode_of(self._usual_mode))

    def _leave_raw_mode(self) -> None:
        if self._usual_mode is not None:
            restore(STDIN, self._usual_mode)


def _directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _copy_all(source: int, sink: int) -> None:
    """Copies until one side ends; EIO is how the master of a terminal says so."""
    try:
        while data := os.read(source, _PIECE):
            _write_all(sink, data)
    except OSError:
        pass
