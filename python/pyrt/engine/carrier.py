"""The process that carries files out of a container or into it: one for each side of a copy, started from ``carrying``.

It is no thread of the engine's, because it takes on the container's ids, and because a file system that the container
itself serves (FUSE) may keep whoever looks at it waiting for ever: this one can be killed. ::

    engine  -- the task, JSON, as argument; root, stream and report as descriptors -->  carrier
            <-- report: nothing, or {"message", "hint"} --------------------------------
"""

from __future__ import annotations

import os
import stat
import sys
from functools import partial
from typing import Final

import msgspec

from pyrt import _native
from pyrt.engine.unpacking import Ownership, Target, unpack
from pyrt.errors import PyrtError, UsageError
from pyrt.images.tree import write_living_tree

_FAILED: Final = 1
_RANGE: Final = 65_536
_NOBODY: Final = 65_534


class Pack(msgspec.Struct, frozen=True, tag=True):
    """Writes what is at ``path`` below the root as a tar.

    ``base``: first host id of the container, None if its ids are the host's. ``follow``: of a link, what it leads to.
    ``empty``: see ``write_living_tree``.
    """

    path: str
    base: int | None = None
    follow: bool = False
    empty: tuple[str, ...] | None = None


class Unpack(msgspec.Struct, frozen=True, tag=True):
    """Extracts a tar at ``path`` below the root. ``base`` as above; ``whole`` and ``ownership``: see ``unpack``."""

    path: str
    ownership: Ownership
    base: int | None = None
    inside: bool = True
    whole: bool = True


Task = Pack | Unpack


class Report(msgspec.Struct, frozen=True):
    """What went wrong."""

    message: str
    hint: str | None = None


def main(task: str, root: str, stream: str, report: str) -> int:
    """Does the task; the exit status is 0 if it is done."""
    try:
        do(msgspec.json.decode(task, type=Task), int(root), int(stream))
    except BrokenPipeError:
        return _FAILED  # Whoever read has something to say.
    except PyrtError as error:
        os.write(int(report), msgspec.json.encode(Report(error.message, error.hint)))
        return _FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        os.write(int(report), msgspec.json.encode(Report(f"{where}{error.strerror or error}")))
        return _FAILED
    return 0


def do(task: Task, root: int, stream: int) -> None:
    """The task, in this very process. Raises PyrtError, OSError."""
    if isinstance(task, Pack):
        _pack(task, root, stream)
        return
    if task.base:
        # The upper directory is idmapped: to make a file in it takes an id that it knows.
        _native.set_file_ids(task.base, task.base)
    unpack(stream, Target(root, task.path, inside=task.inside), task.ownership, whole=task.whole)


def _pack(task: Pack, root: int, stream: int) -> None:
    follow = task.follow or task.path.endswith(("/", "/.", "/.."))
    place = _native.open_in_root(root, task.path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
    try:
        if task.path.endswith("/") and not stat.S_ISDIR(os.fstat(place).st_mode):
            raise UsageError(f"{task.path} is no folder")
        write_living_tree(place, _name_of(task.path), stream, owner=partial(_owner, task.base), empty=task.empty)
    finally:
        os.close(place)


def _owner(base: int | None, number: int) -> int:
    """Of a file, as the container sees it."""
    if base is None:
        return number
    return number - base if base <= number < base + _RANGE else _NOBODY


def _name_of(path: str) -> str:
    """How the copy is called: "." for the contents of a folder, as ``cp`` means "/srv/."."""
    name = path.rstrip("/").rpartition("/")[2]
    return "." if name in {"", ".", ".."} else name


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
