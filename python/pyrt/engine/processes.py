"""The processes of a container as the kernel lists them: what ``top`` and ``ps`` tell of each, from /proc (proc(5)).

The container decides on its processes' names and arguments, and may end them at any moment.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_LONGEST_COMMAND: Final = 1 << 16
# Numbers of terminals (makedev(3)): pseudo terminals have 136 to 143.
_PTS: Final = range(136, 144)


class ContainerProcess(msgspec.Struct, frozen=True, kw_only=True):
    """One process. Ids are of the host's namespaces; ``inner_pid`` and ``inner_user`` are those that it has inside.

    ``started`` is Unix time in nanoseconds, ``cpu_time`` in seconds, ``memory`` (resident) and ``virtual`` in bytes.
    ``state`` is the kernel's letter, ``terminal`` like "pts/0" or "". ``command`` is as the process shows it; () for
    one that shows none.
    """

    pid: int
    parent: int
    inner_pid: int
    user: int
    inner_user: int
    group: int
    state: str
    terminal: str
    started: int
    cpu_time: float
    memory: int
    virtual: int
    threads: int
    name: str
    command: tuple[str, ...]


def look_at(pids: Iterable[int], id_base: int | None) -> list[ContainerProcess]:
    """Those of the processes that are still there, the oldest first. ``id_base``: first host id of the container."""
    booted = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    found = []
    for pid in pids:
        with suppress(OSError, IndexError, KeyError, ValueError):
            found.append(_look_at(pid, id_base or 0, booted))
    return sorted(found, key=lambda process: (process.started, process.pid))


def _look_at(pid: int, id_base: int, booted: int) -> ContainerProcess:
    name, fields = _stat(pid)
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines())
    status = {key: value.split() for key, _, value in lines}
    user, group = int(status["Uid"][0]), int(status["Gid"][0])
    return ContainerProcess(
        pid=pid,
        parent=int(fields[1]),
        inner_pid=int(status["NSpid"][-1]),
        user=user,
        inner_user=user - id_base if user >= id_base else user,
        group=group,
        state=fields[0].decode(),
        terminal=_terminal(int(fields[4])),
        started=booted + int(fields[19]) * (1_000_000_000 // _TICK),
        cpu_time=(int(fields[11]) + int(fields[12])) / _TICK,
        memory=int(fields[21]) * _PAGE,
        virtual=int(fields[20]),
        threads=int(fields[17]),
        name=name,
        command=_command(pid),
    )


def _stat(pid: int) -> tuple[str, list[bytes]]:
    """Its name, and what comes after that, from the state on: proc_pid_stat(5)."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    # The name may have spaces and parentheses: the last one ends it.
    name, _, rest = stat[stat.index(b"(") + 1 :].rpartition(b")")
    return name.decode(errors="replace"), rest.split()


def _terminal(number: int) -> str:
    major = os.major(number)
    if major in _PTS:
        return f"pts/{(major - _PTS.start) * 256 + os.minor(number)}"
    return f"tty{os.minor(number)}" if major == 4 else ""


def _command(pid: int) -> tuple[str, ...]:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read(_LONGEST_COMMAND)
    return tuple(word.decode(errors="replace") for word in words.rstrip(b"\0").split(b"\0")) if words else ()


class Hanging(NamedTuple):
    """A process that waits for something in the kernel, and hears no signal meanwhile."""

    pid: int
    name: str
    place: str
    """The kernel's function in which it waits, "" if that is not told."""

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name}) hangs in the kernel{f', in {self.place}' * bool(self.place)}"


def hanging(pids: Iterable[int]) -> list[Hanging]:
    """Those of the processes that do. What is read of them waits for none of them: their memory may be locked."""
    found = []
    for pid in pids:
        with suppress(OSError, ValueError):
            name, fields = _stat(pid)
            if fields[0] == b"D":
                place = Path(f"/proc/{pid}/wchan").read_text()
                found.append(Hanging(pid, name, "" if place == "0" else place))
    return found


class Consumption(msgspec.Struct, frozen=True):
    """Seconds of processor time and bytes of block devices, of processes and all their children that have ended."""

    cpu_time: float
    read: int
    written: int


def consumed(pids: Iterable[int]) -> Consumption:
    """What the processes have used: for a container that no cgroup counts it for."""
    ticks = read = written = 0
    for pid in pids:
        with suppress(OSError, IndexError, ValueError):
            _, fields = _stat(pid)
            ticks += sum(map(int, fields[11:15]))
            lines = Path(f"/proc/{pid}/io").read_text().splitlines()
            counts = {key: int(value) for key, value in (line.split(":") for line in lines)}
            read, written = read + counts["read_bytes"], written + counts["write_bytes"]
    return Consumption(ticks / _TICK, read, written)
