"""Looking at a detached container, and speaking to it: its log, and its standard input by way of its keeper."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, final

import trio

from pyrt import _native
from pyrt.engine import keepers
from pyrt.engine.detaching import Detaching
from pyrt.engine.logs import LogOptions, LogStream
from pyrt.engine.spawner import receive
from pyrt.engine.states import LIVE
from pyrt.errors import ContainerNotFound, IllegalTransition, StateError

if TYPE_CHECKING:
    from pyrt.engine.record import Record


@final
class Input:
    """The way into a container: a descriptor of its standard input or its terminal's master, -1 if it takes none."""

    def __init__(self, connection: socket.socket, descriptor: int, *, terminal: bool) -> None:
        self._connection = connection
        self.descriptor = descriptor
        self.terminal = terminal

    def take(self) -> int:
        """The descriptor, which is the caller's from now on."""
        descriptor, self.descriptor = self.descriptor, -1
        return descriptor

    def close_for_others(self) -> None:
        """Has the keeper close its own: the input ends when the descriptor is closed, unless others are attached."""
        try:
            self._connection.send(_native.ask("close input"), socket.MSG_NOSIGNAL)
        except OSError:
            pass  # It has just ended.

    def close(self) -> None:
        """Closes what is still ours."""
        self._connection.close()
        if (descriptor := self.take()) >= 0:
            os.close(descriptor)


class Attaching(Detaching):
    """The engine's verbs for what flows in and out of a detached container."""

    def logs(self, container: str, options: LogOptions = LogOptions()) -> LogStream:  # noqa: B008 - a plain tuple
        """What a container has written, and with ``follow`` what it writes until it ends. Close it.

        Raises ContainerNotFound, StateError if there is no log: it was neither created nor run detached.
        """
        record = self.journal.get(container)
        if record.lasting is None:
            raise StateError(
                f"container {record.name} has no log: what it wrote went to whoever started it",
                hint="pyrt run -d keeps one",
            )
        return self._log(record, options)

    def next_log(self, container: str) -> LogStream:
        """What a container writes that is about to be started. Open it before, or the first words are missed; close it.

        Raises as ``logs`` does, but for one that has ended and had no log so far.
        """
        record, options = self.journal.get(container), LogOptions(follow=True, tail=0)
        return self.logs(record.id, options) if record.state in LIVE else self._log(record, options)

    def _log(self, record: Record, options: LogOptions) -> LogStream:
        if record.lasting is not None and not record.lasting.log.files:
            raise StateError(f"container {record.name} has no log", hint="it was started with --log-driver none")
        try:
            return LogStream(self.layout.folder(record.id), options, lambda: self._is_over(record.id))
        except FileNotFoundError:
            raise ContainerNotFound(f"no container {record.name}") from None

    def _is_over(self, container: str) -> bool:
        if Path(self.layout.folder(container), "exit").exists():
            return True
        try:
            return self.journal.get(container).state not in LIVE
        except ContainerNotFound:
            return True

    async def open_input(self, container: str) -> Input:
        """The way to the standard input of a container that runs detached. Raises IllegalTransition if it does not."""
        record = self.journal.get(container)
        connection = keepers.connect(Path(record.keeper)) if record.keeper and record.state in LIVE else None
        if connection is None:
            raise _not_there(record)
        try:
            connection.send(_native.ask("attach"), socket.MSG_NOSIGNAL)
            return await _input(connection, record)
        except BaseException:
            connection.close()
            raise


async def _input(connection: socket.socket, record: Record) -> Input:
    with trio.fail_after(5):
        while (message := await receive(connection)).data:
            report = _native.parse_report(message.data)
            if isinstance(report, _native.Attached):
                return Input(connection, (*message.descriptors, -1)[0], terminal=report.terminal)
            for descriptor in message.descriptors:
                os.close(descriptor)
    raise _not_there(record)


def _not_there(record: Record) -> IllegalTransition:
    hint = (
        "pyrt start -a starts it" if record.lasting else "it belongs to whoever started it: only pyrt run -d detaches"
    )
    return IllegalTransition(f"container {record.name} does not run detached: nobody can attach to it", hint=hint)
