"""What a dead engine can have left behind, and how it is taken away.

Only what is known to be ours is touched: a cgroup with the id of a container of this journal, a folder below our
own root. Processes go with their keeper, which dies or cleans up when its engine does; should one remain in the
cgroup, it is killed through a pidfd, so never by a number that has been given to another since.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from pyrt.engine.cgroups import PARENT

_TRIES: Final = 200
_PAUSE: Final = 0.01


def cgroups_of(container: str, parent: str = "", mounts: list[str] | None = None) -> list[Path]:
    """The cgroup directories of a container that are there, one a hierarchy; ``parent`` if it was given one.

    ``mounts`` is what ``cgroup_mounts`` said, if that was asked before.
    """
    place = f"{parent or PARENT}/{container}"
    return [folder for mount in mounts or cgroup_mounts() if (folder := Path(mount, place)).is_dir()]


async def clear_cgroups(container: str, parent: str = "", *, mounts: list[str] | None = None) -> bool:
    """Kills what is left in a container's cgroups and removes them; False if something stays for two seconds."""
    for _ in range(_TRIES):
        folders = cgroups_of(container, parent, mounts)
        for folder in folders:
            _kill_all(folder)
            with suppress(OSError):  # What is frozen does not die.
                (folder / "freezer.state").write_text("THAWED")
            with suppress(OSError):  # EBUSY until the last process is reaped.
                folder.rmdir()
        if not folders:
            return True
        await trio.sleep(_PAUSE)
    return False


def is_in_container(pid: int, container: str) -> bool:
    """Whether the process lives in the container's cgroup."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return False
    return any(f"/{container}" in line for line in lines)


def open_pidfd(pid: int, container: str) -> int | None:
    """A pidfd of the process, if it is of the container; None if it is gone, or its number is another's by now."""
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError, OSError):
        return None
    # Looked up only now: the descriptor keeps the number from being given away.
    if is_in_container(pid, container):
        return pidfd
    os.close(pidfd)
    return None


def _kill_all(folder: Path) -> None:
    try:
        pids = [int(line) for line in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return
    for pid in pids:
        pidfd = open_pidfd(pid, folder.name)
        if pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


def cgroup_mounts() -> list[str]:
    """Where the hierarchies of both versions are mounted: man 5 proc, mountinfo."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith(("cgroup ", "cgroup2 ")):
            mounts.append(fields.split()[4])
    return mounts
