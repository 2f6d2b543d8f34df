"""Limits -> ``linux.resources`` and ``process.rlimits``: the numbers of a caller, judged before anything is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pyrt.errors import UsageError
from pyrt.runtime.block_io import block_io
from pyrt.runtime.host import parse_cpu_list
from pyrt.runtime.words import parse_cpus, parse_size, within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrt.runtime.host import Host
    from pyrt.runtime.options import Limits, Ulimit

# Docker's floor since 20.10: below it a container dies while it is being made, and the kernel's message says nothing.
_LEAST_MEMORY: Final = 6 << 20
# What the kernel takes (kernel/sched/core.c): periods from 1 ms to 1 s, quotas from 1 ms.
_PERIOD: Final = 100_000
_SHORTEST: Final = 1_000
_LONGEST: Final = 1_000_000
_UNLIMITED: Final = -1
# An int of kernel/sched/rt.c.
_LONGEST_REAL: Final = (1 << 31) - 1
# PID_MAX_LIMIT.
_MOST_PIDS: Final = 1 << 22

# As ulimit and Docker call them (getrlimit(2)).
_ULIMITS: Final = frozenset(
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)
# RLIM_INFINITY.
_INFINITY: Final = (1 << 64) - 1


def resources(limits: Limits, host: Host) -> dict[str, Any]:
    """``linux.resources`` without ``devices``."""
    found: dict[str, Any] = {}
    if memory := _memory(limits, host):
        found["memory"] = memory
    if cpu := _cpu(limits, host):
        found["cpu"] = cpu
    if limits.pids not in {None, 0, _UNLIMITED}:
        found["pids"] = {"limit": within(limits.pids or 0, 1, _MOST_PIDS, "number of processes")}
    if disks := block_io(limits):
        found["blockIO"] = disks
    return found


def is_unlimited(memory: int | str | None) -> bool:
    """Whether this limit of memory is none: not given, or -1 or 0, in numbers or words."""
    return memory is None or str(memory) in {"-1", "0"}


def _memory(limits: Limits, host: Host) -> dict[str, Any]:
    found: dict[str, Any] = {}
    limit = 0
    if not is_unlimited(limits.memory):
        limit = found["limit"] = parse_size(limits.memory or 0, "memory limit")
        if limit < _LEAST_MEMORY:
            raise UsageError(
                f"a memory limit of {limits.memory} is too small to start a container", hint="the least is 6m"
            )
    if limits.memory_reservation is not None:
        reservation = found["reservation"] = parse_size(limits.memory_reservation, "memory reservation")
        if limit and reservation > limit:
            raise UsageError(f"the memory reservation {limits.memory_reservation} is above the limit {limits.memory}")
    if (swap := _swap(limits, limit, host)) is not None:
        found["swap"] = swap
    # As Docker has it: -1 is none.
    if limits.memory_swappiness not in {None, -1}:
        found["swappiness"] = within(limits.memory_swappiness or 0, 0, 100, "swappiness")
    if limits.oom_kill_disable:
        if not limit:
            raise UsageError(
                "without a limit of memory the whole machine would wait for more",
                hint="--oom-kill-disable goes with -m",
            )
        found["disableOOMKiller"] = True
    return found


def _swap(limits: Limits, memory: int, host: Host) -> int | None:
    """Memory and swap together."""
    if str(limits.memory_swap) in {"None", "0"}:
        return 2 * memory if memory and host.swap_limits else None
    if not memory:
        raise UsageError("a limit of swap needs one of memory", hint="--memory-swap is memory and swap together")
    if str(limits.memory_swap) == "-1":
        return _UNLIMITED
    swap = parse_size(limits.memory_swap or 0, "limit of memory and swap")
    if swap < memory:
        raise UsageError(
            f"the limit of memory and swap, {limits.memory_swap}, is below that of memory, {limits.memory}",
            hint="it is both together; equal means no swap",
        )
    return swap


def _cpu(limits: Limits, host: Host) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if limits.cpus is not None:
        found.update(_share_of_time(limits, host))
    if limits.cpu_period is not None:
        found["period"] = within(limits.cpu_period, _SHORTEST, _LONGEST, "CPU period in microseconds")
    if limits.cpu_quota is not None and limits.cpu_quota != _UNLIMITED:
        found["quota"] = within(limits.cpu_quota, _SHORTEST, 1 << 44, "CPU quota in microseconds")
    if limits.cpu_shares is not None:
        found["shares"] = within(limits.cpu_shares, 2, 262_144, "number of CPU shares")
    if limits.cpu_rt_period:
        found["realtimePeriod"] = within(limits.cpu_rt_period, 1, _LONGEST_REAL, "period of real time in microseconds")
    if limits.cpu_rt_runtime:
        found["realtimeRuntime"] = within(limits.cpu_rt_runtime, 1, _LONGEST_REAL, "real time in microseconds")
    if limits.cpuset_cpus:
        found["cpus"] = _cpuset(limits.cpuset_cpus, host)
    if limits.cpuset_mems:
        _list(limits.cpuset_mems, "memory nodes")
        found["mems"] = limits.cpuset_mems
    return found


def _share_of_time(limits: Limits, host: Host) -> dict[str, int]:
    if limits.cpu_period is not None or limits.cpu_quota is not None:
        raise UsageError("--cpus and a CPU period or quota say the same thing", hint="give one of them")
    cpus = parse_cpus(limits.cpus or 0)
    if not 0.01 <= cpus <= len(host.cpus):
        raise UsageError(f"{limits.cpus} processors can't be had", hint=f"from 0.01 to the {len(host.cpus)} there are")
    return {"period": _PERIOD, "quota": max(_SHORTEST, round(cpus * _PERIOD))}


def _cpuset(text: str, host: Host) -> str:
    missing = _list(text, "processors") - host.cpus
    if missing:
        raise UsageError(f"there is no processor {min(missing)}", hint=f"this machine has {_ranges(host.cpus)}")
    return text


def _list(text: str, what: str) -> frozenset[int]:
    try:
        return parse_cpu_list(text)
    except ValueError:
        raise UsageError(f"{text!r} is no list of {what}", hint="write it as in 0-3,7") from None


def _ranges(numbers: frozenset[int]) -> str:
    return f"{min(numbers)}-{max(numbers)}" if len(numbers) > 1 else str(min(numbers))


def rlimits(ulimits: Sequence[Ulimit]) -> list[dict[str, Any]]:
    """``process.rlimits``; the last of one name counts."""
    return list({limit.name: _rlimit(limit) for limit in ulimits}.values())


def _rlimit(limit: Ulimit) -> dict[str, Any]:
    if limit.name not in _ULIMITS:
        raise UsageError(f"there is no limit {limit.name!r}", hint=f"there are {', '.join(sorted(_ULIMITS))}")
    soft, hard = (_INFINITY if value == _UNLIMITED else value for value in (limit.soft, limit.hard))
    if not 0 <= soft <= hard <= _INFINITY:
        raise UsageError(
            f"the limit {limit.name}={limit.soft}:{limit.hard} is none",
            hint="first the one in force, then its ceiling, which is not below it",
        )
    return {"type": f"RLIMIT_{limit.name.upper()}", "soft": soft, "hard": hard}
