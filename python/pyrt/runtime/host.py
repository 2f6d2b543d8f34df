"""What a specification depends on of this machine, read once by whoever starts containers.

The one module of this room that looks at the machine: ``spec`` gets a ``Host`` and stays a pure function.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from pyrt.runtime.capabilities import ALL

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
# More is no file of a resolver.
_LARGEST_FILE: Final = 1 << 16


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """``hosts`` and ``resolv_conf`` are the texts of the files in /etc. ``capabilities``: those that this process has.

    ``cpus``: numbers of the processors. ``masked``: paths that only some machines have and containers must not see.
    ``swap_limits``: the kernel can limit swap. ``device_rules``: cgroup v1, whose device rules are a few writes.
    ``device_programs``: cgroup v2 alone, where the kernel has to verify a program for them.
    """

    hostname: str = "localhost"
    hosts: str = ""
    resolv_conf: str = ""
    architecture: str = "amd64"
    kernel: tuple[int, int] = (6, 1)
    cpus: frozenset[int] = frozenset({0})
    capabilities: frozenset[str] = frozenset(ALL)
    masked: tuple[str, ...] = ()
    swap_limits: bool = True
    device_rules: bool = True
    device_programs: bool = False


def read_host() -> Host:
    """This machine as it is now; about half a millisecond."""
    system = os.uname()
    major, minor = system.release.split(".")[:2]
    return Host(
        hostname=system.nodename,
        hosts=_text("/etc/hosts"),
        resolv_conf=_text("/etc/resolv.conf"),
        architecture=_ARCHITECTURES.get(system.machine, system.machine),
        kernel=(int(major), int("".join(digit for digit in minor if digit.isdigit()) or 0)),
        cpus=_cpus(_text("/sys/devices/system/cpu/online")),
        capabilities=_capabilities(_text("/proc/self/status")),
        # Temperatures tell a container what its neighbours do.
        masked=tuple(sorted(map(str, Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")))),
        swap_limits=_limits_swap(),
        device_rules=Path("/sys/fs/cgroup/devices").is_dir(),
        device_programs=Path("/sys/fs/cgroup/cgroup.controllers").is_file(),
    )


def parse_cpu_list(text: str) -> frozenset[int]:
    """Numbers of a list like "0-3,7"; ValueError if it is none. Numbers from 8192 on, which no kernel has, are one."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and part.isascii() and (last.isdecimal() or not dash)) or len(part) > 20:
            raise ValueError(text)
        begin, end = int(first), int(last or first)
        if begin > end or end > 8191:
            raise ValueError(text)
        numbers.update(range(begin, end + 1))
    return frozenset(numbers)


def _cpus(online: str) -> frozenset[int]:
    """Where /sys is missing, at least those that this process may use."""
    return parse_cpu_list(online) if online else frozenset(os.sched_getaffinity(0))


def _text(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(_LARGEST_FILE).decode(errors="replace")
    except OSError:
        return ""


def _capabilities(status: str) -> frozenset[str]:
    line = next((line for line in status.splitlines() if line.startswith("CapPrm:")), "CapPrm: 0")
    bits = int(line.split()[1], 16)
    return frozenset(name for number, name in enumerate(ALL) if bits >> number & 1)


def _limits_swap() -> bool:
    if Path("/sys/fs/cgroup/memory").is_dir():
        return Path("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()
    # Version 2 has the file in every group but the root, where there is none to look at; and it is always built in.
    return Path("/proc/swaps").exists()
