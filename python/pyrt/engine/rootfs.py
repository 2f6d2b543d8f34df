"""The files of a container as a descriptor of its root: of one that runs what it sees, of another its layers, mounted.

Nothing here follows a path into it: see ``unpacking`` and ``carrier``.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyrt import _native
from pyrt.engine import debris
from pyrt.engine.states import LIVE, State
from pyrt.errors import IllegalTransition, StateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyrt.engine.record import Record


class Rootfs(NamedTuple):
    """``descriptor`` is of the root. ``base``: what the container's ids are above its own, None if they are the same.

    ``mounts``: paths, relative to the root, at which something else is mounted.
    """

    descriptor: int
    base: int | None
    mounts: tuple[str, ...]


@contextmanager
def open_rootfs(record: Record, lowers: Sequence[str], upper: Path | None) -> Iterator[Rootfs]:
    """The files of a container, for the time of the block; blocks for a millisecond.

    ``upper``: the container's folder, None where it has none. Raises IllegalTransition for a container that is just
    being started, StateError.
    """
    if record.state is State.STARTING or record.state is State.REMOVING:
        raise IllegalTransition(f"container {record.name} is {record.state}: its files can't be had just now")
    rootfs = _of_running(record) if record.state in LIVE else _of_stopped(record, lowers, upper)
    try:
        yield rootfs
    finally:
        os.close(rootfs.descriptor)


def _of_running(record: Record) -> Rootfs:
    ended = IllegalTransition(f"container {record.name} has just ended", hint="try again")
    pidfd = debris.open_pidfd(record.pid, record.id)
    if pidfd is None:
        raise ended
    try:
        descriptor = os.open(f"/proc/{record.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mounts = _mounts(record.pid)
            # It was that process's all the time, and no other's of the same number.
            signal.pidfd_send_signal(pidfd, 0)
        except BaseException:
            os.close(descriptor)
            raise
    except (FileNotFoundError, ProcessLookupError):
        raise ended from None
    finally:
        os.close(pidfd)
    return Rootfs(descriptor, record.id_base, mounts)


def _mounts(pid: int) -> tuple[str, ...]:
    """proc_pid_mountinfo(5): the fifth field, with spaces and the like in octal."""
    lines = Path(f"/proc/{pid}/mountinfo").read_bytes().splitlines()
    paths = (line.split(b" ")[4].decode("unicode_escape").encode("latin-1") for line in lines)
    return tuple(os.fsdecode(path).lstrip("/") for path in paths)


def _of_stopped(record: Record, lowers: Sequence[str], upper: Path | None) -> Rootfs:
    try:
        return Rootfs(_native.mount_layers(lowers, str(upper) if upper else None), None, ())
    except OSError as error:
        raise StateError(f"the files of container {record.name} can't be mounted: {error.strerror}") from error
