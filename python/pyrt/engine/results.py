"""How a container or a process in it ended, as plain values.

They are handed to callers and written into the journal; nothing here acts.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec


class Verdict(StrEnum):
    """Why a process ended. Never guessed: each has its own evidence."""

    EXITED = "exited"
    """It called exit by itself."""
    SIGNALED = "signaled"
    """A signal ended it that pyrt did not send."""
    OUT_OF_MEMORY = "out of memory"
    """SIGKILL ended it and the kernel counts tasks of its cgroup killed for want of memory."""
    TIMED_OUT = "timed out"
    """Its time limit passed and pyrt killed it."""
    KILLED = "killed"
    """pyrt was asked to signal or stop it, or its caller was cancelled, and a signal ended it."""
    LOST = "lost"
    """Its engine, its keeper or the machine ended, and it with it; nobody saw how."""


class ExitStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The end of a process.

    ``code`` or ``signal`` is set, not both; for Verdict.LOST neither. ``memory_peak`` is in bytes, 0 if unknown;
    ``cpu_time`` and ``duration`` in seconds; ``finished`` is Unix time in nanoseconds; ``pids_refused`` counts
    the forks that the limit on processes refused; ``lost_output`` the bytes for which the log had no room.
    """

    verdict: Verdict
    code: int | None = None
    signal: int | None = None
    duration: float = 0.0
    finished: int = 0
    oom_kills: int = 0
    memory_peak: int = 0
    cpu_time: float = 0.0
    pids_refused: int = 0
    lost_output: int = 0

    def but(self, **changes: object) -> ExitStatus:
        """The same, with other fields."""
        return msgspec.structs.replace(self, **changes)

    @property
    def exit_code(self) -> int:
        """As `docker run` returns it: the code, or 128 and the signal; 255 if nobody saw the end."""
        if self.code is not None:
            return self.code
        return NOBODY_SAW if self.signal is None else 128 + self.signal


NOBODY_SAW: Final = 255

_SHOWN: Final = 60
"""Bytes of a stream that its repr shows."""


def _beginning(data: bytes) -> str:
    return repr(data) if len(data) <= _SHOWN else f"{data[:_SHOWN]!r}... ({len(data)} bytes)"


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """One step of a start: who did it (engine, keeper, child), its name, and when it was done.

    ``at`` is in nanoseconds since the start was asked for.
    """

    part: str
    name: str
    at: int


class Timing(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the steps of one start took.

    ``engine`` are its own steps; ``steps`` are (part, name) of the plan's, ``done`` when each was done, in nanoseconds
    since the start was asked for, or 0 or less for one that was not run. ``marks`` has all of them in order.
    """

    engine: tuple[Mark, ...] = ()
    steps: tuple[tuple[str, str], ...] = ()
    done: tuple[int, ...] = ()

    @property
    def marks(self) -> tuple[Mark, ...]:
        """All steps that were run, in the order in which they were done."""
        plan = [Mark(part, name, at) for (part, name), at in zip(self.steps, self.done, strict=False) if at > 0]
        return tuple(sorted((*self.engine, *plan), key=lambda mark: mark.at))

    @property
    def total(self) -> int:
        """Nanoseconds from the call to the execution of the container's command."""
        return max((*self.done, *(mark.at for mark in self.engine)), default=0)


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """A process that has ended, and what it wrote.

    ``stdout`` and ``stderr`` hold at most ``max_output`` bytes each, the first ones; ``lost_output`` counts what
    came after and was thrown away. ``duration`` is in seconds, from the process's start to its end.
    """

    id: str
    stdout: bytes
    stderr: bytes
    status: ExitStatus
    lost_output: int = 0
    timing: Timing = Timing()

    def __repr__(self) -> str:
        """Short enough to read: the beginning of what was written, and none of the timing."""
        fields = [f"verdict={str(self.verdict)!r}", f"exit_code={self.exit_code}"]
        fields += [f"stdout={_beginning(self.stdout)}", f"stderr={_beginning(self.stderr)}"]
        fields += [f"lost_output={self.lost_output}"] if self.lost_output else []
        return f"Completed(id={self.id[:12]!r}, {', '.join(fields)}, duration={self.duration:.3f})"

    @property
    def exit_code(self) -> int:
        return self.status.exit_code

    @property
    def verdict(self) -> Verdict:
        return self.status.verdict

    @property
    def signal(self) -> int | None:
        return self.status.signal

    @property
    def duration(self) -> float:
        return self.status.duration
