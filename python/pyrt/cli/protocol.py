"""What the native client and the server say to each other.

::

    client                                                server
       | Call{version, directory, arguments, environment}    |
       |      + [0, 1, 2] --------------------------------->  |
       |                                                     |  parses and runs the verb
       | <----------------------------- Text{stream, bytes}  |  any number, for descriptor 1 or 2
       | <---------- Relay{streams} + [the container's ends]  |  copy between these and 0 to 2
       | Signal{number} ---------------------------------->  |  to the container, or ends the verb
       | Window{rows, columns} --------------------------->  |
       | <----------------------------- Exit{status, signal}  |  what is still in the pipes first
       | end of file ------------------------------------->  |  at any time: the client is gone, and
       |                                                     |  with it whatever was attached to it

       | Call ------------------------------------------->   |  of another version
       | <------------------------------- Other{version}     |  nothing was run
       | Drain ------------------------------------------>   |  frees its socket, ends what it has to do
       | <------------------------------------ end of file   |  the client starts its own server

``rust/client/src/lib.rs`` is the twin of this, and its ``frame.rs`` describes the bytes.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Final

import msgspec
import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

PROTOCOL: Final = 1
"""Changes whenever a frame does; a client of another one is told so and nothing is run."""
LONGEST_CALL: Final = 4 << 20
LONGEST_TEXT: Final = 64 << 10
"""Bytes of one Text, less than what the client takes in one frame (1 MiB)."""
_LONGEST_OTHER: Final = 64
"""Bytes of any other frame from a client."""
_MOST_DESCRIPTORS: Final = 3
_PIECE: Final = 64 << 10
_ANCILLARY: Final = socket.CMSG_SPACE(_MOST_DESCRIPTORS * array.array("i").itemsize)
_RECEIVING: Final = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT

_HEADER: Final = struct.Struct("<IHH")
_CALL: Final = struct.Struct("<HI")
_WINDOW: Final = struct.Struct("<HH")


class Kind(IntEnum):
    """The kinds of frames; below 16 the client's, from 16 on the server's."""

    CALL = 1
    DRAIN = 2
    SIGNAL = 3
    WINDOW = 4
    OTHER = 16
    TEXT = 17
    RELAY = 18
    EXIT = 19


class Streams(IntFlag):
    """Which descriptors a Relay carries; TERMINAL: one, the master, and INPUT says whether keys go in."""

    INPUT = 1
    OUTPUT = 2
    ERROR = 4
    TERMINAL = 8


class Malformed(Exception):
    """What arrived is no frame of this protocol: the connection is closed, and nobody else notices."""


class Call(msgspec.Struct, frozen=True):
    """What a client wants done. ``environment`` is as in environ(7): NAME=value."""

    protocol: int
    version: str
    directory: str = ""
    arguments: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()


def parse_call(payload: bytes) -> Call:
    """Reads a Call. Of one in another protocol only ``protocol`` and ``version`` are set."""
    try:
        protocol, count = _CALL.unpack_from(payload)
    except struct.error:
        raise Malformed("a call without a head") from None
    version, *texts = os.fsdecode(payload[_CALL.size :]).split("\0")
    if protocol != PROTOCOL:
        return Call(protocol, version)
    # The last text ends in a NUL too, so that one more is split off.
    if len(texts) < count + 2 or texts[-1]:
        raise Malformed("a call that is cut off")
    return Call(protocol, version, texts[0], tuple(texts[1 : count + 1]), tuple(texts[count + 1 : -1]))


def encode_call(call: Call) -> bytes:
    """A Call's payload, as the native client sends it."""
    texts = (call.version, call.directory, *call.arguments, *call.environment, "")
    return _CALL.pack(call.protocol, len(call.arguments)) + os.fsencode("\0".join(texts))


def parse_signal(payload: bytes) -> int:
    """The number in a Signal."""
    if len(payload) != 1:
        raise Malformed("a signal of a strange size")
    return payload[0]


def parse_window(payload: bytes) -> tuple[int, int]:
    """Rows and columns in a Window."""
    if len(payload) != _WINDOW.size:
        raise Malformed("a window of a strange size")
    rows, columns = _WINDOW.unpack(payload)
    return rows, columns


class Wire:
    """The frames of one connection. One task may receive; any number may send.

    The kernel is asked first and waited for only where it has nothing: each turn of Trio's loop that a start does
    without is 50 us less of it. So whoever sends or receives many frames gives others a turn himself.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._received = bytearray()
        self._descriptors: list[int] = []
        # A sender that is cancelled leaves the rest of its frame here: the next one sends that first.
        self._unsent = bytearray()
        self._sending = trio.Lock()

    def close(self) -> None:
        """Closes the connection and what it brought and nobody took."""
        self._socket.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    async def receive(self) -> tuple[Kind, bytes, list[int]] | None:
        """The next frame with its descriptors, which are the caller's from now on; None at the end."""
        while True:
            if frame := self._take():
                return frame
            if not await self._fill():
                return None

    def _take(self) -> tuple[Kind, bytes, list[int]] | None:
        if len(self._received) < _HEADER.size:
            return None
        length, number, count = _HEADER.unpack_from(self._received)
        if not Kind.CALL <= number <= Kind.WINDOW or length > (LONGEST_CALL if number == Kind.CALL else _LONGEST_OTHER):
            raise Malformed(f"a frame of kind {number} and {length} bytes")
        end = _HEADER.size + length
        if len(self._received) < end:
            return None
        if count > len(self._descriptors):
            raise Malformed(f"a frame without its {count} descriptors")
        payload = bytes(self._received[_HEADER.size : end])
        del self._received[:end]
        descriptors, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        return Kind(number), payload, descriptors

    async def _fill(self) -> bool:
        try:
            while True:
                try:
                    data, control, _, _ = self._socket.recvmsg(_PIECE, _ANCILLARY, _RECEIVING)
                    break
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(self._socket)
        except ConnectionError:
            return False
        for level, kind, content in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                self._descriptors.extend(numbers)
        if len(self._descriptors) > _MOST_DESCRIPTORS:
            raise Malformed("more descriptors than any frame has")
        self._received += data
        return bool(data)

    async def send(self, kind: Kind, payload: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """Sends one frame; waits as long as the client does not read. ``descriptors`` stay the caller's.

        Never returns if the client is gone: whoever receives finds that out, and cancels what is done for it.
        """
        frame = _HEADER.pack(len(payload), kind, len(descriptors)) + payload
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            await self._flush()
            # The first byte takes the descriptors along.
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
            sent = await self._send_some(frame, rights)
            self._unsent += frame[sent:]
            await self._flush()
        except OSError:
            await trio.sleep_forever()
        finally:
            self._sending.release()

    async def _send_some(self, data: bytes | bytearray, control: list[tuple[int, int, array.array[int]]]) -> int:
        while True:
            try:
                return self._socket.sendmsg([data], control, socket.MSG_DONTWAIT)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)

    async def _flush(self) -> None:
        while self._unsent:
            sent = await self._send_some(self._unsent, [])
            del self._unsent[:sent]
