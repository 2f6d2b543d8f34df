"""What a running container uses of the machine just now, from the counters of its cgroups and of its network.

On cgroup v1 a container has only the groups that its limits need; what no group counts is summed over its processes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from pyrt.engine.processes import consumed

if TYPE_CHECKING:
    from pyrt.engine.cgroups import Groups
    from pyrt.engine.record import Record

_NANO: Final = 1_000_000_000


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a container. ``time`` is CLOCK_MONOTONIC in nanoseconds, ``cpu_time`` in seconds; sizes are bytes.

    ``memory`` is without files that could be dropped, as Docker counts it. ``memory_limit`` is the machine's memory
    where there is none, ``pids_limit`` then None. Network is what came and went by other interfaces than loopback, and
    nothing for a container on the host's network. Counters only grow: two looks give a rate.
    """

    container: str
    name: str
    time: int
    cpu_time: float
    memory: int
    memory_limit: int
    pids: int
    pids_limit: int | None
    block_read: int
    block_written: int
    network_received: int
    network_sent: int

    @property
    def memory_share(self) -> float:
        """Of its limit, in percent."""
        return 100 * self.memory / self.memory_limit if self.memory_limit else 0.0

    def cpu_share(self, before: Stats) -> float:
        """Processor time since an earlier look, in percent of one processor."""
        seconds = (self.time - before.time) / _NANO
        return max(0.0, 100 * (self.cpu_time - before.cpu_time) / seconds) if seconds > 0 else 0.0


def look(record: Record, groups: Groups, *, own_network: bool) -> Stats:
    """What the container uses. Takes a tenth of a millisecond, and more where it has many processes."""
    pids = groups.processes()
    used = consumed(pids)
    cpu = _cpu_time(groups)
    block = _block(groups) or (used.read, used.written)
    received, sent = _network(record.pid) if own_network else (0, 0)
    return Stats(
        container=record.id,
        name=record.name,
        time=time.monotonic_ns(),
        cpu_time=used.cpu_time if cpu is None else cpu,
        memory=_memory(groups),
        memory_limit=_memory_limit(groups),
        pids=_number(groups.read("pids", "pids.current")) or len(pids),
        pids_limit=_number(groups.read("pids", "pids.max")),
        block_read=block[0],
        block_written=block[1],
        network_received=received,
        network_sent=sent,
    )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _table(text: str | None) -> dict[str, int]:
    """Lines of a word and a number."""
    rows = (line.split() for line in (text or "").splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def _cpu_time(groups: Groups) -> float | None:
    if groups.unified:
        microseconds = _table(groups.read("cpu", "cpu.stat")).get("usage_usec")
        return None if microseconds is None else microseconds / 1e6
    nanoseconds = _number(groups.read("cpuacct", "cpuacct.usage"))
    return None if nanoseconds is None else nanoseconds / 1e9


def _memory(groups: Groups) -> int:
    file, cache = ("memory.current", "inactive_file") if groups.unified else (_V1_USAGE, "total_inactive_file")
    usage = _number(groups.read("memory", file)) or 0
    return max(0, usage - _table(groups.read("memory", "memory.stat")).get(cache, 0))


_V1_USAGE: Final = "memory.usage_in_bytes"


def _memory_limit(groups: Groups) -> int:
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _number(groups.read("memory", "memory.max" if groups.unified else "memory.limit_in_bytes"))
    return min(limit, whole) if limit else whole


def _block(groups: Groups) -> tuple[int, int] | None:
    """Bytes read from block devices and written to them; None if no group counts them."""
    if groups.unified:
        text = groups.read("io", "io.stat")
        words = (word.partition("=") for line in (text or "").splitlines() for word in line.split()[1:])
        counts = [(key, int(value)) for key, _, value in words if value.isdigit()]
        sums = tuple(sum(count for key, count in counts if key == wanted) for wanted in ("rbytes", "wbytes"))
        return None if text is None else (sums[0], sums[1])
    text = groups.read("blkio", "blkio.throttle.io_service_bytes_recursive")
    if text is None:
        return None
    rows = [line.split() for line in text.splitlines()]
    read, written = (sum(int(row[2]) for row in rows if row[1:2] == [word]) for word in ("Read", "Write"))
    return read, written


def _network(pid: int) -> tuple[int, int]:
    """Bytes received and sent in the network namespace of a process (proc_pid_net(5), dev)."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except OSError:
        return 0, 0
    rows = [fields.split() for name, _, fields in (line.partition(":") for line in lines) if name.strip() != "lo"]
    return sum(int(row[0]) for row in rows), sum(int(row[8]) for row in rows)
