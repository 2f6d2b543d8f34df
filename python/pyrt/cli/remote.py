"""The console of a native client, at the other end of a socket."""

from __future__ import annotations

import os
import stat
import termios
from functools import cached_property
from typing import TYPE_CHECKING, Final

import trio

from pyrt.cli.console import Console
from pyrt.cli.protocol import LONGEST_TEXT, Call, Kind, Streams, Wire
from pyrt.cli.terminal import Mode, restore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

_USUAL_SIZE: Final = (24, 80)


class RemoteConsole(Console):
    """The client's side of one call. Owns the three descriptors that came with it.

    Only that of stdin is kept: as long as we held the others, who reads a client's output in a pipe would wait for us.
    """

    def __init__(self, wire: Wire, call: Call, descriptors: tuple[int, int, int], process: int) -> None:
        super().__init__()
        self.wire = wire
        self.nursery: trio.Nursery | None = None
        self.directory = call.directory
        self.process = process
        self._lines = call.environment
        self._input, output, error = descriptors
        try:
            self.terminals = os.isatty(self._input), os.isatty(output), os.isatty(error)
            self.rows, self.columns = _USUAL_SIZE
            if any(self.terminals):
                self.rows, self.columns = self._size((output, self._input, error))
        finally:
            os.close(output)
            os.close(error)
        self._usual_mode: Mode | None = None

    @cached_property
    def environment(self) -> Mapping[str, str]:  # type: ignore[override]
        pairs = (line.partition("=") for line in self._lines)
        return {name: value for name, _, value in pairs}

    def close(self) -> None:
        """Gives the client's descriptors up, and the terminal back as it was."""
        if self._usual_mode is not None:
            # A client that was killed could not do it.
            restore(self._input, self._usual_mode)
        os.close(self._input)

    async def write(self, stream: int, data: bytes) -> None:
        for start in range(0, len(data), LONGEST_TEXT):
            await self.wire.send(Kind.TEXT, bytes([stream]) + data[start : start + LONGEST_TEXT])
            await trio.lowlevel.checkpoint()

    async def relay(self, *, input: int | None = None, output: int | None = None, error: int | None = None) -> None:
        ends = {Streams.INPUT: input, Streams.OUTPUT: output, Streams.ERROR: error}
        given = {bit: end for bit, end in ends.items() if end is not None}
        await self._relay(sum(given), tuple(given.values()))

    async def relay_terminal(self, master: int, *, keys: bool) -> None:
        if keys and self.terminals[0]:
            self._usual_mode = termios.tcgetattr(self._input)
        await self._relay(Streams.TERMINAL | (Streams.INPUT if keys else 0), (master,))

    async def _relay(self, streams: int, ends: tuple[int, ...]) -> None:
        try:
            await self.wire.send(Kind.RELAY, bytes([streams]), ends)
        finally:
            for end in ends:
                os.close(end)

    async def settle(self) -> None:
        """The client itself keeps this order."""

    def start_soon(self, work: Callable[..., Awaitable[object]], *arguments: object) -> None:
        assert self.nursery is not None
        self.nursery.start_soon(work, *arguments)

    async def input_file(self) -> int:
        if stat.S_ISREG(os.fstat(self._input).st_mode):
            return os.dup(self._input)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        await self.relay(input=writer)
        return reader

    @staticmethod
    def _size(descriptors: tuple[int, int, int]) -> tuple[int, int]:
        """Of the first of these that is a terminal."""
        for descriptor in descriptors:
            if os.isatty(descriptor):
                columns, rows = os.get_terminal_size(descriptor)
                return rows or _USUAL_SIZE[0], columns or _USUAL_SIZE[1]
        return _USUAL_SIZE
