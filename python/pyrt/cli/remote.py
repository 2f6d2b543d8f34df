"""The console of a native client, at the other end of a socket."""

from __future__ import annotations

import os
import stat
import termios
from functools import cached_property
from typing import TYPE_CHECKING, Final

from pyrt.cli.console import Console
from pyrt.cli.protocol import LONGEST_TEXT, Call, Kind, Streams, Wire
from pyrt.cli.terminal import Mode, restore

if TYPE_CHECKING:
    from collections.abc import Mapping

_USUAL_SIZE: Final = (24, 80)


class RemoteConsole(Console):
    """The client's side of one call. Owns the three descriptors that came with it."""

    def __init__(self, wire: Wire, call: Call, descriptors: tuple[int, int, int], process: int) -> None:
        super().__init__()
        self.wire = wire
        self.directory = call.directory
        self.process = process
        self._lines = call.environment
        self._descriptors = descriptors
        input, output, error = descriptors
        self.terminals = os.isatty(input), os.isatty(output), os.isatty(error)
        self.rows, self.columns = self._size()
        self._usual_mode: Mode | None = None

    @cached_property
    def environment(self) -> Mapping[str, str]:  # type: ignore[override]
        pairs = (line.partition("=") for line in self._lines)
        return {name: value for name, _, value in pairs}

    def close(self) -> None:
        """Gives the client's descriptors up, and the terminal back as it was."""
        if self._usual_mode is not None:
            # A client that was killed could not do it.
            restore(self._descriptors[0], self._usual_mode)
        for descriptor in self._descriptors:
            os.close(descriptor)

    async def write(self, stream: int, data: bytes) -> None:
        for start in range(0, len(data), LONGEST_TEXT):
            await self.wire.send(Kind.TEXT, bytes([stream]) + data[start : start + LONGEST_TEXT])

    async def relay(self, *, input: int | None = None, output: int | None = None, error: int | None = None) -> None:
        ends = {Streams.INPUT: input, Streams.OUTPUT: output, Streams.ERROR: error}
        given = {bit: end for bit, end in ends.items() if end is not None}
        await self._relay(sum(given), tuple(given.values()))

    async def relay_terminal(self, master: int, *, keys: bool) -> None:
        if keys and self.terminals[0]:
            self._usual_mode = termios.tcgetattr(self._descriptors[0])
        await self._relay(Streams.TERMINAL | (Streams.INPUT if keys else 0), (master,))

    async def _relay(self, streams: int, ends: tuple[int, ...]) -> None:
        try:
            await self.wire.send(Kind.RELAY, bytes([streams]), ends)
        finally:
            for end in ends:
                os.close(end)

    async def settle(self) -> None:
        """The client itself keeps this order."""

    async def input_file(self) -> int:
        if stat.S_ISREG(os.fstat(self._descriptors[0]).st_mode):
            return os.dup(self._descriptors[0])
        reader, writer = os.pipe2(os.O_CLOEXEC)
        await self.relay(input=writer)
        return reader

    def _size(self) -> tuple[int, int]:
        for number in (1, 0, 2):
            if self.terminals[number]:
                columns, rows = os.get_terminal_size(self._descriptors[number])
                return rows or _USUAL_SIZE[0], columns or _USUAL_SIZE[1]
        return _USUAL_SIZE
