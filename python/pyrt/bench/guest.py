"""Small virtual machines: Debian's cloud kernel, an initramfs made on the spot, a serial console that is read.

It is the baseline of the start-up bench, and the way to try something under another kernel or on pure cgroup v2::

    kernel = debian_kernel(cache)
    with booted(kernel, initramfs({"init": script}), accelerator="tcg") as guest:
        guest.wait_for(rb"login:")
        guest.send(b"...")

Whether KVM works is found by trying it: a machine that is virtual itself may have /dev/kvm and boot no guest.
"""

from __future__ import annotations

import os
import platform
import re
import select
import shutil
import stat
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyrt.bench.cases import Case, unavailable
from pyrt.bench.programs import program
from pyrt.bench.results import Published
from pyrt.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyrt.bench.ground import Ground

QEMU: Final = "qemu-system-x86_64"
FIRECRACKER: Final = Published(
    case="Firecracker, to init",
    value=125.0,
    source="published, at most (SPECIFICATION.md of firecracker-microvm/firecracker): an i3.metal, no serial console",
)
_METAPACKAGE: Final = "linux-image-cloud-amd64"
_QUIET: Final = "console=ttyS0 reboot=t panic=-1 quiet loglevel=0"
_CLOCK: Final = rb"(?m)^\d{6,}\r?$"
"""What the clock program prints, on a line of its own."""
_TRIAL: Final = 10.0
"""Seconds in which a guest that KVM runs has long printed its first line."""
_PATIENCE: Final = 120.0
"""Seconds for one that is emulated, on a machine that has other things to do."""


class GuestFailed(Exception):
    """It ended, or said nothing for too long; what it printed last."""


class Guest:
    """A running machine. ``output`` is what its serial console has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.output = b""

    def wait_for(self, pattern: bytes, patience: float = _PATIENCE) -> int:
        """CLOCK_MONOTONIC at which something that matches ``pattern`` had been printed. Raises GuestFailed."""
        assert self._process.stdout is not None
        console = self._process.stdout.fileno()
        waiting = select.poll()
        waiting.register(console, select.POLLIN)
        deadline = time.monotonic() + patience
        while not re.search(pattern, self.output):
            piece = os.read(console, 4096) if waiting.poll(max(0.0, deadline - time.monotonic()) * 1000) else b""
            if not piece:
                tail = self.output[-500:].decode(errors="replace").strip()
                raise GuestFailed(f"it did not print {pattern.decode()}, but: {tail or 'nothing'}")
            self.output += piece
        return time.monotonic_ns()

    def send(self, data: bytes) -> None:
        """Types into its serial console."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()


@contextmanager
def booted(
    kernel: Path,
    initramfs: Path,
    *,
    accelerator: str,
    machine: str = "microvm,acpi=off",
    memory: int = 128,
    arguments: str = _QUIET,
    more: tuple[str, ...] = (),
) -> Iterator[Guest]:
    """A machine for the time of the block.

    ``machine`` is QEMU's name for what it imitates, ``memory`` in MiB; ``arguments`` are for its kernel, ``more`` for
    QEMU.
    """
    words = [
        *(QEMU, "-machine", f"{machine},accel={accelerator}"),
        *("-cpu", "host" if accelerator == "kvm" else "qemu64", "-smp", "1", "-m", str(memory)),
        *("-kernel", str(kernel), "-initrd", str(initramfs), "-append", arguments),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *more,
    ]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield Guest(process)
    finally:
        process.kill()
        process.communicate()


def write_initramfs(path: Path, files: Mapping[str, bytes]) -> Path:
    """An archive of executable files, as the kernel unpacks it (driver-api/early-userspace/buffer-format.rst)."""
    folders = sorted({str(parent) for name in files for parent in Path(name).parents} - {"."})
    with path.open("wb") as archive:
        for name in folders:
            archive.write(_member(name, stat.S_IFDIR | 0o755, b""))
        for name, content in files.items():
            archive.write(_member(name, stat.S_IFREG | 0o755, content))
        archive.write(_member("TRAILER!!!", 0, b""))
    return path


def _member(name: str, mode: int, content: bytes) -> bytes:
    """One file in cpio's "newc" form: thirteen numbers of eight hexadecimal digits, name and content, each padded."""
    encoded = name.encode() + b"\0"
    numbers = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + encoded
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


# ---- the kernel ----


def debian_kernel(cache: Path) -> Path:
    """Debian's cloud kernel: $PYRT_BENCH_KERNEL, what an earlier call has left in ``cache``, or from Debian's archive.

    Raises HostError where there is none.
    """
    if chosen := os.environ.get("PYRT_BENCH_KERNEL"):
        return Path(chosen)
    if found := [*cache.glob("vmlinuz-*")]:
        return max(found)
    if shutil.which("apt-get") is None:
        raise HostError("there is no kernel for the guest", hint="PYRT_BENCH_KERNEL names one")
    cache.mkdir(parents=True, exist_ok=True)
    package = _package_of(_METAPACKAGE)
    _tell(["apt-get", "download", "-q", package], cache)
    [archive] = cache.glob(f"{package}_*.deb")
    _tell(["sh", "-c", f"dpkg-deb --fsys-tarfile {archive.name} | tar x --strip-components=2 ./boot"], cache)
    archive.unlink()
    return max(cache.glob("vmlinuz-*"))


def _package_of(metapackage: str) -> str:
    listing = _tell(["apt-cache", "depends", metapackage], Path("/"))
    words = [line.split()[-1] for line in listing.splitlines() if "Depends:" in line]
    if not words:
        raise HostError(
            f"Debian's archive has no {metapackage} for this machine", hint="PYRT_BENCH_KERNEL names a kernel"
        )
    return words[0]


def _tell(words: list[str], folder: Path) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"{words[0]} failed: {done.stderr.strip()[-300:]}", hint="PYRT_BENCH_KERNEL names a kernel")
    return done.stdout


def accelerator(kernel: Path, initramfs: Path, pattern: bytes) -> str:
    """ "kvm" if a guest that it runs prints what matches ``pattern``, else "tcg"."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    try:
        with booted(kernel, initramfs, accelerator="kvm") as guest:
            guest.wait_for(pattern, _TRIAL)
    except GuestFailed:
        return "tcg"
    return "kvm"


# ---- the baseline of start-up ----


def case(ground: Ground) -> Case:
    """A row: from QEMU's start to the first line of a guest's init, which does nothing but print its clock."""
    name = "virtual machine"
    if ground.program(QEMU) is None:
        return unavailable(name, f"{QEMU} is not installed (Debian: qemu-system-x86)")
    if platform.machine() != "x86_64":
        return unavailable(name, "the guest's kernel is for x86_64")
    try:
        kernel = debian_kernel(_cache())
    except HostError as error:
        return unavailable(name, error.message)
    files = write_initramfs(ground.folder / "initramfs", {"init": program("clock")})
    chosen = accelerator(kernel, files, _CLOCK)
    version = f"QEMU microvm, {'KVM' if chosen == 'kvm' else 'TCG (emulated)'}, {kernel.name}"

    async def sample() -> dict[str, float]:
        begun = time.monotonic_ns()
        with booted(kernel, files, accelerator=chosen) as guest:
            return {"ready": (guest.wait_for(_CLOCK) - begun) / 1e6}

    return Case(f"{name}, {'KVM' if chosen == 'kvm' else 'TCG (emulated)'}", sample, version=version)


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or f"{os.path.expanduser('~')}/.cache"
    return Path(os.environ.get("PYRT_BENCH_CACHE") or f"{home}/pyrt-bench")
