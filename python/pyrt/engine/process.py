"""One process that a keeper attends: PID 1 of a container, or one that joined it later.

::

    begin()                        attend()
      |  Started, or raise            |  Exited           end of file
      v                               v                   v
    pid, pidfd, terminal            status, ended       gone: cgroups removed, keeper gone

The control socket belongs to this object alone; whoever wants to know waits for its events.
"""

from __future__ import annotations

import array
import errno
import os
import signal as signals
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from pyrt import _native
from pyrt.engine.spawner import receive
from pyrt.engine.verdict import status_of
from pyrt.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyrt.engine.results import ExitStatus

START_LIMIT: Final = 30.0
"""Seconds after which a keeper that says nothing is given up: a start takes milliseconds."""
KILL_LIMIT: Final = 10.0
"""Seconds that SIGKILL may take: longer only where a process hangs in the kernel."""
LOOKS: Final = 3
AT_ONCE: Final = 10_000
"""Nanoseconds between two looks at a clock."""
BRIEF: Final = 0.005
"""Seconds: of what ends within them, start and end are recorded in one."""


class KeeperLost(EngineError):
    """The keeper was killed before it could say that the process runs.

    ``untouched``: it had not even read what it was last sent, so the process has not run.
    """

    def __init__(self, *, untouched: bool) -> None:
        super().__init__("the spawner or the keeper was killed while it started a container", hint="try again")
        self.untouched = untouched


class Process:
    """Speaks with the keeper of one process over ``control``, which it owns."""

    def __init__(self, control: socket.socket, last_words: Callable[[], bytes] = bytes) -> None:
        """``last_words`` gives what a keeper that is gone has left written, if it can have."""
        self._control = control
        self._last_words = last_words
        self._sent: set[int] = set()
        self.released = False
        """Somebody else sees to it from now on."""
        self.cause = ""
        """On whose behalf it was signalled last."""
        self.pid = 0
        self.pidfd = -1
        self.terminal = -1
        self.started = 0
        """Unix time in nanoseconds at which its program was executed."""
        self.status: ExitStatus | None = None
        self.at_end: Callable[[], object] = lambda: None
        """Called when ``status`` is there."""
        self.at_kill: Callable[[], object] = lambda: None
        """Called when SIGKILL was sent: what is frozen does not die of it."""
        self.met = trio.Event()
        """Set when it has ended, or has run for BRIEF."""
        self.ended = trio.Event()
        """Set when ``status`` is there, or will not be because it was released."""
        self.gone = trio.Event()
        """Set when its keeper has cleaned up."""

    async def begin(self) -> _native.Started | _native.Failed:
        """Waits until the process runs or could not be made; raises EngineError if the keeper is lost.

        Is not cancelled, for it takes milliseconds and half a start can't be undone from here.
        """
        with trio.CancelScope(shield=True, deadline=trio.current_time() + START_LIMIT):
            message = await receive(self._control)
            if not message.data:
                raise KeeperLost(untouched=message.unread)
            report = _native.parse_report(message.data)
            if isinstance(report, _native.Started):
                self._adopt(report, message.descriptors)
            elif not isinstance(report, _native.Failed):
                raise EngineError("the keeper told of something else before the start")
            return report
        raise EngineError(
            f"the keeper has not answered for {START_LIMIT:.0f} s",
            hint="a file system that hangs? see the kernel's log",
        )

    async def resume(self) -> bool:
        """Hears from the keeper of a process that runs already, however long it takes; False once the keeper is gone.

        Of one of another version nothing but its end is understood.
        """
        while (message := await receive(self._control)).data:
            with suppress(EngineError):
                if isinstance(report := _native.parse_report(message.data), _native.Started):
                    self._adopt(report, message.descriptors)
                    return True
            for descriptor in message.descriptors:
                os.close(descriptor)
        return False

    def _adopt(self, report: _native.Started, descriptors: list[int]) -> None:
        if not descriptors:
            # The kernel drops what finds no place in our table (MSG_CTRUNC); without a pidfd it can't be killed.
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.pid = report.pid
        self.pidfd, self.terminal = (*descriptors, -1)[:2]
        begun = max(report.timings, default=0) or report.begun
        self.started = _unix_time(begun)

    def is_silent(self) -> bool:
        """Whether its keeper has neither said anything that is not read yet nor gone."""
        try:
            self._control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def wake(self, message: bytes, descriptors: list[int], last_words: Callable[[], bytes]) -> None:
        """Lets a parked container go on to its command, or to that of the message; raises KeeperLost."""
        self._last_words = last_words
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        try:
            self._control.sendmsg([message], rights, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise KeeperLost(untouched=True) from error

    async def dismiss(self) -> None:
        """Ends a parked container: returns when its keeper has cleaned up, at the latest after KILL_LIMIT."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + KILL_LIMIT):
            with suppress(OSError):
                self._control.shutdown(socket.SHUT_WR)
            while (await receive(self._control)).data:
                pass
        self.close()

    async def attend(
        self,
        record: Callable[[ExitStatus], Awaitable[ExitStatus]],
        lives_on: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint,
    ) -> None:
        """Waits for the end of the process, then for its keeper's.

        ``record`` gets the status before anybody else does, and returns what is to be told. ``lives_on`` is called if
        that takes longer than BRIEF. Is not cancelled: a process has to be killed, or released, to end this.
        """
        with trio.CancelScope(shield=True):
            status: ExitStatus | None = None
            with trio.move_on_after(BRIEF):
                status = await self._end()
            if status is None:
                self.met.set()
                await lives_on()
                status = await self._end()
            try:
                if not self.released:
                    status = await record(status)
                    self._acknowledge()
            finally:
                self.status = None if self.released else status
                self.met.set()
                self.ended.set()
                self.at_end()
            # Whoever waits for the end goes first: two turns, as the tasks of one run in any order.
            for _ in range(2):
                await trio.lowlevel.checkpoint()
            try:
                while not self.released and (await receive(self._control)).data:
                    pass
            except trio.ClosedResourceError:
                pass
            self.gone.set()

    async def _end(self) -> ExitStatus:
        try:
            while True:
                data = (await receive(self._control)).data
                if not data or isinstance(_native.parse_report(data), _native.Exited):
                    break
        except (trio.ClosedResourceError, EngineError):
            data = b""
        return status_of(data or self._last_words(), self.started, self._sent)

    def _acknowledge(self) -> None:
        """A keeper that could not write the exit down waits for this; every other one has ended."""
        with suppress(OSError):
            self._control.send(_native.ask("recorded"), socket.MSG_NOSIGNAL)

    def release(self) -> None:
        """Lets a detached process run on without us: ``attend`` ends, and records nothing."""
        self.released = True
        self.close()

    def signal(self, number: int, cause: str = "") -> bool:
        """Sends a signal; False if the process has ended already. Never meets another process of the same number."""
        if self.pidfd < 0 or self.status is not None:
            return False
        try:
            signals.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return False
        if number == signals.SIGKILL:
            self.at_kill()
        self._sent.add(number)
        self.cause = cause
        return True

    async def kill(self, cause: str) -> None:
        """SIGKILL, then waits until the keeper has cleaned up; not cancelled, but given up after KILL_LIMIT."""
        self.signal(signals.SIGKILL, cause)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + KILL_LIMIT):
            await self.gone.wait()

    def take_terminal(self) -> int:
        """The terminal's master, which is the caller's from now on; -1 if there is none."""
        terminal, self.terminal = self.terminal, -1
        return terminal

    def close(self) -> None:
        """Closes the control socket and the pidfd: an attached process that runs is killed by its keeper."""
        if self._control.fileno() >= 0 and not self.gone.is_set():
            trio.lowlevel.notify_closing(self._control)
        self.forget()

    def forget(self) -> None:
        """The same without a word to Trio: after a fork, in the child."""
        self._control.close()
        for descriptor in (self.pidfd, self.take_terminal()):
            if descriptor >= 0:
                os.close(descriptor)
        self.pidfd = -1


def _unix_time(monotonic: int) -> int:
    """A time of CLOCK_MONOTONIC on the other clock, in nanoseconds. Who is held up between two looks looks again."""
    for _ in range(LOOKS):
        before, now, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        if after - before < AT_ONCE:
            break
    return now - (before - monotonic)
