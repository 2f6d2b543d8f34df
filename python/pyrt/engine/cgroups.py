"""The cgroups of a container that runs, seen and changed from outside: who is in them, frozen or not, their limits.

A start makes no more groups than its limits need. What is wanted later, the freezer of a pause or the group of a new
limit, is made then, and every process of the container is moved into it. All of it blocks for milliseconds.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, final

from pyrt import _native
from pyrt.errors import EngineError, HostError

if TYPE_CHECKING:
    from collections.abc import Callable

PARENT: Final = "pyrt"
"""Below it, in each hierarchy, are the groups of containers that were given no other parent."""

# Memory and pids: every container has them, for their counters say how it ended.
_ALWAYS: Final = ("pids", "memory")
_FREEZE_LIMIT: Final = 10.0
_PAUSE: Final = 0.001
_LARGEST: Final = 1 << 20


class _Machine(NamedTuple):
    unified: bool
    mounts: dict[str, str]
    """Of each controller; of version 2 all have the same."""
    root: str
    """Where version 2 is mounted, "" if it is not the only one."""


@cache
def _machine() -> _Machine:
    host = _native.host()
    unified = host["cgroups"] == "v2"
    mounts = dict(host["controllers"])
    return _Machine(unified, mounts, next(iter(mounts.values()), "") if unified else "")


def mounts() -> tuple[str, ...]:
    """Where hierarchies are mounted."""
    return tuple(dict.fromkeys(_machine().mounts.values()))


@final
class Groups:
    """The cgroups of one container. ``parent`` is the folder that it was given, below each hierarchy's root."""

    def __init__(self, container: str, parent: str = "") -> None:
        self._place = f"{parent.strip('/') or PARENT}/{container}"

    @property
    def unified(self) -> bool:
        """Whether there is one group, of version 2, instead of one a controller."""
        return _machine().unified

    def folder(self, controller: str) -> Path:
        """The group in the hierarchy of a controller, which may not be there. Raises HostError."""
        machine = _machine()
        mount = machine.root or machine.mounts.get(controller)
        if mount is None:
            raise HostError(
                f"no cgroup hierarchy with the controller {controller} is mounted",
                hint="pyrt info shows those that are",
            )
        return Path(mount, self._place)

    def read(self, controller: str, file: str) -> str | None:
        """What a file of a group says; None where there is no such file."""
        try:
            with (self.folder(controller) / file).open("rb") as opened:
                return opened.read(_LARGEST).decode().strip()
        except (OSError, HostError):
            return None

    def processes(self) -> list[int]:
        """Ids, in our own pid namespace, of every process of the container, those that joined it among them."""
        for controller in _ALWAYS:
            if (text := self.read(controller, "cgroup.procs")) is not None:
                return [number for number in map(int, text.split()) if number]
        return []

    # ---- more groups ----

    def extend(self, controller: str) -> Path:
        """The group in this controller's hierarchy, made if it is not there, with every process in it."""
        folder = self.folder(controller)
        if self.unified:
            _enable(folder, controller)
            return folder
        with suppress(FileExistsError):
            folder.parent.mkdir(parents=True)
        with suppress(FileExistsError):
            folder.mkdir()
        if controller == "cpuset":
            _inherit_cpuset(folder)
        self._gather(folder)
        return folder

    def _gather(self, folder: Path) -> None:
        """Moves every process into a group, also those that are forked meanwhile by one that was not moved yet."""
        while missing := set(self.processes()) - set(_numbers(folder / "cgroup.procs")):
            if not sum(_move(pid, folder) for pid in missing):
                return  # What is left is dying.

    def folders(self) -> list[str]:
        """Every group that it can have. Raises HostError."""
        return [f"{mount}/{self._place}" for mount in mounts()]

    def remove_left(self) -> None:
        """Removes groups that the keeper knows nothing of, once the container has ended."""
        for folder in self.folders():
            with suppress(OSError):
                os.rmdir(folder)

    # ---- the freezer ----

    def freeze(self) -> None:
        """Stops every process where it is. Raises EngineError if one can't be stopped: it hangs in the kernel."""
        if self.unified:
            (self.folder("") / "cgroup.freeze").write_text("1")
            frozen = self._wait(lambda: "frozen 1" in (self.read("", "cgroup.events") or "").splitlines())
        else:
            folder = self.extend("freezer")
            frozen = self._wait(lambda: _freezes(folder / "freezer.state"))
            # Whoever was forked since then by a straggler is frozen on its arrival.
            self._gather(folder)
        if not frozen:
            self.thaw()
            raise EngineError(
                f"the container's processes could not be stopped within {_FREEZE_LIMIT:.0f} s",
                hint="one of them hangs in the kernel, on a file system perhaps: see pyrt top",
            )

    def thaw(self) -> None:
        """Lets the processes go on; nothing happens if they are not frozen."""
        if self.unified:
            with suppress(OSError):
                (self.folder("") / "cgroup.freeze").write_text("0")
            return
        with suppress(HostError, OSError):
            folder = self.folder("freezer")
            (folder / "freezer.state").write_text("THAWED")
            self._dissolve(folder)

    def _dissolve(self, folder: Path) -> None:
        """Back to where all others are: then the keeper need not know of the group."""
        while pids := _numbers(folder / "cgroup.procs"):
            if not sum(_move(pid, Path(_machine().mounts["freezer"])) for pid in pids):
                break
        os.rmdir(folder)

    def _wait(self, condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + _FREEZE_LIMIT
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        return True

    # ---- limits ----

    def limit(self, resources: bytes) -> None:
        """Writes ``linux.resources`` (JSON) into the groups. Raises HostError, with what the kernel says."""
        settings = _native.cgroup_limits(resources)
        for controller in dict.fromkeys(controller for controller, _, _ in settings):
            folder = self.extend(controller)
            files = [(file, value) for of, file, value in settings if of == controller]
            _write_all(folder, files)


def _write_all(folder: Path, files: list[tuple[str, str]]) -> None:
    """Memory has to be below memory and swap at every moment: what is refused at first is tried after the rest."""
    again = [each for each in files if _write(folder, *each)]
    for file, value in again:
        if error := _write(folder, file, value):
            raise HostError(
                f"the kernel refuses {value} for {file}: {error.strerror}", hint=_HINTS.get(error.errno or 0)
            ) from error


_HINTS: Final = {16: "the container uses more than that just now"}


def _write(folder: Path, file: str, value: str) -> OSError | None:
    try:
        (folder / file).write_text(value)
    except OSError as error:
        return error
    return None


def _numbers(path: Path) -> list[int]:
    try:
        return [int(line) for line in path.read_text().split()]
    except OSError:
        return []


def _move(pid: int, folder: Path) -> bool:
    try:
        (folder / "cgroup.procs").write_text(str(pid))
    except OSError:
        return False
    return True


def _freezes(state: Path) -> bool:
    """Version 1: has every process freeze; whether all have.

    To be called until it is so: each time the kernel asks every process just once, and many a one that waits for its
    child (CLONE_VFORK) is passed over by the first call and taken by the second. Linux 6.18: 17 of 20.
    """
    state.write_text("FROZEN")
    return state.read_text().strip() == "FROZEN"


def _inherit_cpuset(folder: Path) -> None:
    """A new group of cpuset's has no processors and no memory until it is given some."""
    for each in (folder.parent, folder):
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not (each / name).read_text().strip():
                (each / name).write_text((each.parent / name).read_text())


def _enable(folder: Path, controller: str) -> None:
    """Version 2: lets the group have a controller."""
    root = Path(_machine().root)
    for parent in reversed([parent for parent in folder.parents if parent == root or root in parent.parents]):
        with suppress(OSError):
            (parent / "cgroup.subtree_control").write_text(f"+{controller}")
