"""One client's connection in the server, from its call to its exit status.

Whatever a client does, sends or fails to do concerns its own connection alone: each is a task, and the only thing
it waits for is its own client.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Final, Protocol

import trio

from pyrt.cli.dispatch import dispatch, report
from pyrt.cli.protocol import PROTOCOL, Call, Kind, Malformed, Wire, parse_call, parse_signal, parse_window
from pyrt.cli.remote import RemoteConsole
from pyrt.errors import EngineError

if TYPE_CHECKING:
    from pyrt.engine.engine import Engine

CALL_TIME: Final = 10.0
"""Seconds in which a client has to say what it wants."""
LAST_WORDS_TIME: Final = 10.0
"""Seconds in which a client has to take what a server of another version tells it."""

_CREDENTIALS: Final = struct.Struct("iII")


class Host(Protocol):
    """What a connection needs of the server."""

    version: str
    log_name: str
    namespace: str | None
    """The mount namespace in which paths mean what the user means; see ``mount_namespace``."""

    async def engine(self) -> Engine: ...

    def drain(self) -> None: ...


async def serve_connection(host: Host, connection: socket.socket) -> None:
    """Serves one client to its end. Closes the connection, raises nothing that a client can cause."""
    wire = Wire(connection)
    try:
        process, user = _peer(connection)
        # The folder's mode keeps others out; this is for the day when somebody changes that.
        if user == os.geteuid():
            await _serve(host, wire, process)
    except (Malformed, trio.TooSlowError):
        pass
    finally:
        wire.close()


def _peer(connection: socket.socket) -> tuple[int, int]:
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(data)
    return process, user


async def _serve(host: Host, wire: Wire, process: int) -> None:
    with trio.fail_after(CALL_TIME):
        frame = await wire.receive()
    if frame is None:
        return
    kind, payload, descriptors = frame
    try:
        if kind == Kind.DRAIN:
            host.drain()
            return
        if kind != Kind.CALL or len(descriptors) != 3:
            raise Malformed("a connection that does not begin with a call")
        call = parse_call(payload)
    except BaseException:
        _close(descriptors)
        raise
    if (call.protocol, call.version) != (PROTOCOL, host.version):
        _close(descriptors)
        await _tell_version(host, wire)
        return
    console = RemoteConsole(wire, call, (descriptors[0], descriptors[1], descriptors[2]), process)
    try:
        if mount_namespace(process) != host.namespace:
            await report(console, _ELSEWHERE)
            await wire.send(Kind.EXIT, bytes([_ELSEWHERE.exit_code, 0]))
        else:
            await _Conversation(host, wire, console).hold(call)
    finally:
        console.close()


def mount_namespace(process: int | str) -> str | None:
    """The name of a process's mount namespace; None for one that can't be seen from here."""
    try:
        return os.readlink(f"/proc/{process}/ns/mnt")
    except OSError:
        return None


_ELSEWHERE: Final = EngineError(
    "this command and its server do not see the same files: they are in different mount namespaces",
    hint="PYRT_RUN names a folder for a server of this one's own",
)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


async def _tell_version(host: Host, wire: Wire) -> None:
    with trio.fail_after(LAST_WORDS_TIME):
        await wire.send(Kind.OTHER, host.version.encode())
        answer = await wire.receive()
    if answer and answer[0] == Kind.DRAIN:
        host.drain()


class _Conversation:
    """A call that is being run, and what its client sends meanwhile."""

    def __init__(self, host: Host, wire: Wire, console: RemoteConsole) -> None:
        self._host = host
        self._wire = wire
        self._console = console
        self._verb = trio.CancelScope()
        self._ended_by = 0

    async def hold(self, call: Call) -> None:
        async with trio.open_nursery() as nursery:
            self._console.nursery = nursery
            nursery.start_soon(self._listen, nursery.cancel_scope)
            status = 0
            with self._verb:
                status = await dispatch(self._console, call.arguments, self._host.engine, log_name=self._host.log_name)
            await self._wire.send(Kind.EXIT, bytes([status & 0xFF, self._ended_by]))
            nursery.cancel_scope.cancel()

    async def _listen(self, connection: trio.CancelScope) -> None:
        """Reads to the end of the connection; then nobody is there for whom the verb could go on."""
        try:
            while frame := await self._wire.receive():
                kind, payload, descriptors = frame
                _close(descriptors)
                self._act(kind, payload)
                await trio.lowlevel.checkpoint()
        except Malformed:
            pass
        connection.cancel()

    def _act(self, kind: Kind, payload: bytes) -> None:
        match kind:
            case Kind.SIGNAL:
                number = parse_signal(payload)
                if not self._console.deliver(number):
                    self._ended_by = number
                    self._verb.cancel()
            case Kind.WINDOW:
                self._console.take_size(*parse_window(payload))
            case _:
                raise Malformed("a second call")
