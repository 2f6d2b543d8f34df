"""What a measurement was taken on: without that a figure means nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from pyrt import _native
from pyrt.cli import VERSION

_POLICIES: Final = {os.SCHED_FIFO: "SCHED_FIFO", os.SCHED_RR: "SCHED_RR"}
"""On a machine with other work, `chrt --rr 10 python -m benches` keeps it out of the figures."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """``memory`` is in bytes; ``load`` are the averages of 1, 5 and 15 minutes when the bench began."""

    when: str
    processor: str
    cores: int
    memory: int
    kernel: str
    virtualization: str
    cgroups: str
    python: str
    pyrt: str
    load: tuple[float, float, float]
    scheduling: str = "usual"

    def line(self) -> str:
        """For below a picture."""
        urgent = "" if self.scheduling == "usual" else f", run as {self.scheduling}"
        busy = f", load average {self.load[1]:.0f}" if self.load[1] > self.cores else ""
        return f"{self.processor}, {self.cores} cores, Linux {self.kernel}, {self.when[:10]}{busy}{urgent}"


def look() -> Machine:
    """This machine, now."""
    return Machine(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        virtualization=_virtualization(),
        cgroups=_native.host()["cgroups"],
        scheduling=_POLICIES.get(os.sched_getscheduler(0), "usual"),
        python=platform.python_version(),
        pyrt=VERSION,
        load=os.getloadavg(),
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _virtualization() -> str:
    """What systemd-detect-virt says ("kvm", "none"); "unknown" without it."""
    if (program := shutil.which("systemd-detect-virt")) is None:
        return "unknown"
    return subprocess.run([program, "--vm"], capture_output=True, text=True, check=False).stdout.strip() or "unknown"
