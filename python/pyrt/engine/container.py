"""A running container, and a process that joined it, as the caller holds them.

What they do to the journal and to other containers goes through the engine; here is only what one object can
do to itself.
"""

from __future__ import annotations

import signal as signals
from typing import TYPE_CHECKING, Any, final

import trio

from pyrt.engine.attended import Attended
from pyrt.engine.cgroups import Groups
from pyrt.engine.events import ExecExited, ExecStarted
from pyrt.runtime.signals import parse_signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrt.engine.joining import Joining
    from pyrt.engine.pipes import Stdio
    from pyrt.engine.process import Process
    from pyrt.engine.record import Record
    from pyrt.engine.results import Completed, ExitStatus, Timing

DEFAULT_OUTPUT = 16 * 1024 * 1024
"""Bytes of each stream that are kept where all of the output is handed out at once."""


@final
class Execution(Attended):
    """A process that joined a running container. It ends with the container at the latest."""

    def __init__(
        self, id: str, container: Record, command: tuple[str, ...], process: Process, stdio: Stdio, timing: Timing
    ) -> None:
        super().__init__(id, process, stdio, timing)
        self.container = container
        self.command = command

    def started_event(self) -> ExecStarted:
        """What is told of its start."""
        return ExecStarted(
            container=self.container.id,
            name=self.container.name,
            image=self.container.image,
            execution=self.id,
            command=self.command,
            pid=self.pid,
            cause="exec",
        )

    def exited_event(self, status: ExitStatus) -> ExecExited:
        """What is told of its end."""
        return ExecExited(
            container=self.container.id,
            name=self.container.name,
            image=self.container.image,
            execution=self.id,
            verdict=status.verdict,
            exit_code=status.exit_code,
            cause=self.cause,
        )

    async def kill(self, signal: int | str = signals.SIGKILL) -> None:
        """Sends it a signal; does not wait. Nothing happens if it has ended."""
        await trio.lowlevel.checkpoint()
        self._process.signal(parse_signal(signal), "kill")


@final
class Container(Attended):
    """A container that this engine has started and supervises.

    It lives as long as the engine at most, and is killed before that where it was started by ``open_container``.
    """

    def __init__(self, engine: Joining, record: Record, process: Process, stdio: Stdio, timing: Timing) -> None:
        super().__init__(record.id, process, stdio, timing)
        self._engine = engine
        process.at_kill = Groups(record.id, record.cgroup_parent).thaw
        self.record = record
        """What the journal holds of it just now."""

    @property
    def name(self) -> str:
        return self.record.name

    async def kill(self, signal: int | str = signals.SIGKILL) -> None:
        """Sends PID 1 a signal; does not wait. With SIGKILL the whole container ends.

        Raises IllegalTransition if it has ended.
        """
        await self._engine.kill(self.id, signal)

    async def stop(self, timeout: float | None = None) -> ExitStatus:  # noqa: ASYNC109 - docker's word for it
        """Sends its stop signal, SIGKILL ``timeout`` (``stop_timeout``, 10) seconds later, and waits for its end."""
        return await self._engine.stop(self.id, timeout)

    async def exec(
        self,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        time: float | None = None,
        max_output: int = DEFAULT_OUTPUT,
        **options: Any,
    ) -> Completed:
        """Runs another process in it to its end; ``time`` is its limit in seconds.

        ``options`` are the fields of ``ExecOptions``. Cancelled, it kills that process. Raises IllegalTransition if the
        container does not run, CommandNotFound and its kin.
        """
        execution = await self._engine.exec(self.id, command, wants_stdin=bool(stdin), time=time, **options)
        return await self._engine.complete(execution, stdin, max_output)
