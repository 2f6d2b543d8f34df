"""Where keepers of detached containers are found: a socket each, under the container's id, in one folder.

The engine that starts a container makes the socket and hands it to the keeper, which listens from then on and takes
the name away at its end. See ``rust/container/src/protocol.rs``.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, final

from pyrt import _native
from pyrt.engine import journald
from pyrt.engine.lasting import USUAL
from pyrt.engine.pipes import nanoseconds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyrt.engine.layout import Layout
    from pyrt.engine.record import Record

BACKLOG: Final = 64
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@final
class Doors:
    """What is handed to the keeper of a detached container, open for the time of a ``doors`` block."""

    def __init__(
        self, folder: int, listener: socket.socket, names: int, record: Record, journal: tuple[int, bytes] | None
    ) -> None:
        lasting = record.lasting or USUAL
        self._ends = [folder, listener.fileno(), names]
        if journal:
            self._ends.append(journal[0])
        self._detached = _native.Detached(
            name=record.id,
            log_size=lasting.log.size,
            log_files=lasting.log.files,
            input=lasting.stdin,
            journal=journal[1] if journal else b"",
        )

    def message(self, plan: _native.Plan, control: int, limit: float | None) -> tuple[bytes, list[int]]:
        """The start message of a container that lasts, killed after ``limit`` seconds."""
        return plan.start_message(control, *self._ends, limit=nanoseconds(limit), detached=self._detached)

    def late_message(self, command: bytes) -> tuple[bytes, list[int]]:
        """The message that lets a parked container go on, with another command if that is not empty."""
        return _native.stdio_message(command, self._detached), self._ends

    def sent(self) -> None:
        """The keeper has them: nothing of ours has to go before the block ends."""


@contextmanager
def doors(layout: Layout, record: Record) -> Iterator[Doors]:
    """The container's folder, a socket under its id, and the folder of that name. Gone again if the block fails."""
    container = record.id
    folder = os.open(layout.folder(container), _FOLDER)
    try:
        names = _open_names(layout.keepers)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, _journal(record) as journal:
                with suppress(FileNotFoundError):
                    os.unlink(container, dir_fd=names)
                # A path of any length fits by way of the descriptor: sockaddr_un has 107 bytes (unix(7)).
                listener.bind(f"/proc/self/fd/{names}/{container}")
                try:
                    listener.listen(BACKLOG)
                    yield Doors(folder, listener, names, record, journal)
                except BaseException:
                    with suppress(FileNotFoundError):
                        os.unlink(container, dir_fd=names)
                    raise
        finally:
            os.close(names)
    finally:
        os.close(folder)


def _open_names(folder: Path) -> int:
    try:
        return os.open(folder, _FOLDER)
    except FileNotFoundError:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(folder, _FOLDER)


@contextmanager
def _journal(record: Record) -> Iterator[tuple[int, bytes] | None]:
    """The way to journald, for a container whose lines go there."""
    if record.lasting is None or not record.lasting.log.journal:
        yield None
        return
    with journald.folder() as folder:
        yield folder, journald.target(record)


def connect(path: Path) -> socket.socket | None:
    """A connection to the keeper whose socket lies there; None if there is no keeper any more."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setblocking(False)
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
    except OSError:
        connection.close()
        return None
    return connection


def forget(path: Path) -> None:
    """Removes the name of a keeper that is gone."""
    with suppress(FileNotFoundError):
        path.unlink()


def read_exit(folder: str) -> bytes:
    """What a keeper recorded of its container's end; b"" if it has not."""
    try:
        with open(f"{folder}/exit", "rb") as file:
            return file.read()
    except OSError:
        return b""


def forget_exit(folder: str) -> None:
    """Removes the record of an end that is in the journal: the next one is another's."""
    with suppress(FileNotFoundError):
        os.unlink(f"{folder}/exit")
