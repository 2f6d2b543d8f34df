"""The way to the static program: hand it a plan, hear from the keeper that has taken it.

::

    engine                        spawner socket                     a keeper
      | start message + [plan, control, 0, 1, 2, opened ...] ----------> |
      |                          control socket                          |
      | <---------------------- Started, Failed, Exited, end of file --- |

Both are SOCK_SEQPACKET; the messages are described in ``rust/container/src/protocol.rs`` and read by
``_native.parse_report``.
"""

from __future__ import annotations

import array
import errno
import os
import socket
from typing import TYPE_CHECKING, Final, NamedTuple, final

import trio

from pyrt.errors import EngineError, HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_MESSAGE: Final = 16 * 1024
# A keeper sends a pidfd and at most one terminal.
_ANCILLARY: Final = socket.CMSG_SPACE(4 * array.array("i").itemsize)
_END_LIMIT: Final = 5.0
_HINTS: Final = {
    errno.ENOSYS: "this kernel, or a filter before it, lacks a system call that containers need",
    errno.EPERM: "containers are made by root",
    errno.ENOMEM: "the host has no memory left",
    errno.ENOSPC: "a limit of /proc/sys/user (max_mnt_namespaces and its kin) is reached",
}
_GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ECONNREFUSED})


class Message(NamedTuple):
    """One message of a keeper: its bytes, b"" at the end of file, and the descriptors that came with it."""

    data: bytes
    descriptors: list[int]
    unread: bool = False
    """At the end of file: the keeper has gone without reading all that it was sent."""


@final
class Spawner:
    """Owns the spawner process and the socket to it; starts another one when it has died."""

    def __init__(self, launch: Callable[[], tuple[int, int]]) -> None:
        self._launch = launch
        self._turn = trio.Lock()
        self._former: list[int] = []
        self.launches = 0
        self._open()

    def _open(self) -> None:
        self.pid, descriptor = self._launch()
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self.launches += 1

    async def send(self, data: bytes, descriptors: Sequence[int]) -> None:
        """Hands a start message to whichever keeper takes it; waits while the socket is full."""
        if self._turn.locked() or not self._try_send(data, descriptors):
            async with self._turn:
                while not self._try_send(data, descriptors):
                    await trio.lowlevel.wait_writable(self._socket)

    def _try_send(self, data: bytes, descriptors: Sequence[int]) -> bool:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        launches = self.launches
        while True:
            try:
                self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)
                return True
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:
                    raise EngineError(
                        "too many file descriptors are under way to the spawner", hint="raise the limit: ulimit -n"
                    ) from error
                if error.errno not in _GONE or self.launches > launches:
                    raise EngineError(f"the spawner can't be reached: {error.strerror}") from error
                self._relaunch()

    def _relaunch(self) -> None:
        self._socket.close()
        # It may still be about to die: then it is reaped with the last one.
        self._former = [pid for pid in (*self._former, self.pid) if not _reap(pid)]
        self._open()

    async def failure(self) -> HostError | None:
        """Why it could not begin its work, if that is so: it has ended with the error number as its exit status."""
        if not self._has_hung_up():
            return None
        with trio.move_on_after(_END_LIMIT):
            await _ended(self.pid)
        number = _exit_status(self.pid)
        if number <= 0:
            return None
        return HostError(f"containers can't be made here: {os.strerror(number).lower()}", hint=_HINTS.get(number))

    def _has_hung_up(self) -> bool:
        """Neither it nor a keeper that waits for work holds the other end of the socket."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def forget(self) -> None:
        """Closes the socket without ending anything that this process is not the parent of: after a fork."""
        self._socket.close()

    async def aclose(self) -> None:
        """Ends the spawner, and reaps it. Keepers live on with their containers."""
        self._socket.close()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _END_LIMIT):
            for pid in (*self._former, self.pid):
                await _ended(pid)
                _reap(pid)


async def _ended(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)


def _exit_status(pid: int) -> int:
    """Of a child that has ended, which is not reaped yet; 0 if it has not."""
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return result.si_status if result and result.si_code == os.CLD_EXITED else 0


def _reap(pid: int) -> bool:
    """Whether it is reaped; False if it has not ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True  # The host program waits for all its children, or ignores SIGCHLD.


def control_pair() -> tuple[socket.socket, socket.socket]:
    """Our end, which does not block, and the keeper's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


async def receive(control: socket.socket) -> Message:
    """The next message of a keeper. A keeper that was killed is at its end of file too.

    Raises ClosedResourceError if the socket is closed here meanwhile.
    """
    while True:
        try:
            data, ancillary, _, _ = control.recvmsg(MAX_MESSAGE, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(control)
            continue
        except ConnectionResetError:
            return Message(b"", [], unread=True)
        except OSError:
            if control.fileno() < 0:
                # Closed between the wake-up for what it had and our turn.
                raise trio.ClosedResourceError from None
            raise
        return Message(data, _descriptors(ancillary))


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()
