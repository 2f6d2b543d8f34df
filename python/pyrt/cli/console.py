"""What a verb has of its user: descriptors, environment, working directory, terminal, signals.

A verb never touches sys.stdout, os.environ or os.getcwd: in the server those are the server's. What it opens by
name goes through ``Console.path``. The two kinds of console are in ``remote`` (a native client's) and ``local``.
"""

from __future__ import annotations

import abc
import os
import re
from collections import deque
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from pyrt.errors import PyrtError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2

_WAITING_SIGNALS: Final = 64
_OWN_DESCRIPTOR: Final = re.compile(r"/dev/(?:fd/(\d+)|(stdin)|(stdout)|(stderr))|/proc/self/fd/(\d+)")


class Console(abc.ABC):
    """One user, for the time of one command."""

    environment: Mapping[str, str]
    directory: str
    """The working directory, absolute, or "" if it is gone."""
    process: int
    """The user's process: the native client, or this one."""
    terminals: tuple[bool, bool, bool]
    """Which of the descriptors 0 to 2 are terminals."""
    rows: int
    columns: int

    def __init__(self) -> None:
        self._signals: _Signals | None = None
        self._resized = trio.Event()

    # ---- what is written ----

    @abc.abstractmethod
    async def write(self, stream: int, data: bytes) -> None:
        """Writes to descriptor 1 or 2. A slow reader makes nobody wait but the caller."""

    async def out(self, text: str) -> None:
        """Writes text to stdout."""
        await self.write(STDOUT, text.encode(errors="surrogateescape"))

    async def err(self, text: str) -> None:
        """Writes text to stderr."""
        await self.write(STDERR, text.encode(errors="surrogateescape"))

    def has_colour(self, stream: int = STDOUT) -> bool:
        """Whether text for this stream may be coloured (no-color.org)."""
        plain = self.environment.get("NO_COLOR") or self.environment.get("TERM") == "dumb"
        return self.terminals[stream] and not plain

    # ---- what flows by itself ----

    @abc.abstractmethod
    async def relay(self, *, input: int | None = None, output: int | None = None, error: int | None = None) -> None:
        """Connects pipes to the user's descriptors: ``input`` is a write end, the others are read ends.

        The descriptors belong to the console from now on, and this process keeps no copy of them.
        """

    @abc.abstractmethod
    async def relay_terminal(self, master: int, *, keys: bool) -> None:
        """Shows a container's terminal on the user's. ``keys``: what is typed goes in. ``master`` as above."""

    @abc.abstractmethod
    async def settle(self) -> None:
        """Returns when whatever is written next will come after what the relayed pipes hold now."""

    @abc.abstractmethod
    async def input_file(self) -> int:
        """A descriptor that reads what the user gives as stdin, and never makes the event loop wait: the caller's."""

    @abc.abstractmethod
    def start_soon(self, work: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Runs something beside the verb, at most until the user is gone or the verb has been answered."""

    # ---- signals ----

    @contextmanager
    def signals_to(self, send: Callable[[int], Awaitable[object]]) -> Iterator[None]:
        """``send`` gets the signals as long as the block lasts, one after the other: they do not end the verb."""
        before, self._signals = self._signals, _Signals(send)
        try:
            yield
        finally:
            self._signals = before

    def deliver(self, number: int) -> bool:
        """Hands a signal to the verb; whether it wants them."""
        if self._signals is None:
            return False
        if self._signals.begins_with(number):
            self.start_soon(self._signals.pass_on)
        return True

    # ---- the terminal's size ----

    def take_size(self, rows: int, columns: int) -> None:
        """The user's terminal has this size from now on."""
        self.rows, self.columns = rows, columns
        self._resized.set()
        self._resized = trio.Event()

    async def resized(self) -> None:
        """Waits until it has another."""
        await self._resized.wait()

    # ---- names ----

    def path(self, text: str) -> Path:
        """A path as the user means it. Their /dev/stdin and /dev/fd/3 (``<(command)``) are not this process's."""
        if match := _OWN_DESCRIPTOR.fullmatch(text):
            number = next(group for group in match.groups() if group)
            number = {"stdin": "0", "stdout": "1", "stderr": "2"}.get(number, number)
            return Path(f"/proc/{self.process}/fd/{number}")
        if text.startswith("/"):
            return Path(text)
        if not self.directory:
            raise UsageError(f"{text} is relative, and your working directory is gone", hint="cd to one that is there")
        return Path(os.path.normpath(f"{self.directory}/{text}") if text else self.directory)


class _Signals:
    """Those that wait for a verb. A task takes them there while there are any: few verbs ever get one."""

    def __init__(self, send: Callable[[int], Awaitable[object]]) -> None:
        self._send = send
        self._waiting: deque[int] = deque()

    def begins_with(self, number: int) -> bool:
        """Takes one in; whether it is the first, so that somebody has to call ``pass_on``. One too many is lost."""
        if len(self._waiting) < _WAITING_SIGNALS:
            self._waiting.append(number)
        return len(self._waiting) == 1

    async def pass_on(self) -> None:
        while self._waiting:
            with suppress(PyrtError):  # It has just ended.
                await self._send(self._waiting[0])
            self._waiting.popleft()
