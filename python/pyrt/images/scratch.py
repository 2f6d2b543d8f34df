"""Temporary folders below ingest/: each is locked by whoever works in it.

A crash leaves the folder and frees the flock, so debris is just what can be locked. Only names below the
store's own folders are used here; what is in a scratch folder may be an enemy's tree and is removed by
descriptor alone.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Final

from pyrt.errors import PyrtError
from pyrt.images.durable import exists, lock, make_folder, open_folder, still_named, unique

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.1
# Who loses against sweepers so often has lost the folder itself.
_MOST_ATTEMPTS: Final = 1000


class Cancelled(PyrtError):
    """The caller's own ``cancelled`` said so; the caller knows why."""


class Scratch:
    """A locked folder. As a context manager it is removed at the end of the block."""

    def __init__(self, ingest: int, name: str, descriptor: int) -> None:
        self.name = name
        self.descriptor = descriptor
        self._ingest = ingest

    @classmethod
    def fresh(cls, ingest: int, prefix: str = "scratch") -> Scratch:
        """A new one, which nobody else can have."""
        return cls.take(ingest, unique(prefix))

    @classmethod
    def take(cls, ingest: int, name: str, *, cancelled: Callable[[], bool] | None = None) -> Scratch:
        """That of this name, made or left over from a crash; waits while another works in it."""
        for _ in range(_MOST_ATTEMPTS):
            try:
                make_folder(name, within=ingest)
                descriptor = open_folder(name, within=ingest)
            except FileNotFoundError:
                # Somebody who sweeps took it for abandoned before it could be locked.
                continue
            try:
                _wait_for(descriptor, cancelled)
                if still_named(descriptor, name, within=ingest):
                    return cls(ingest, name, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "the folder for unfinished things is gone", name)

    @classmethod
    def abandoned(cls, ingest: int, name: str) -> Scratch | None:
        """That of this name if nobody works in it."""
        try:
            descriptor = open_folder(name, within=ingest)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if lock(descriptor, wait=False) and still_named(descriptor, name, within=ingest):
            return cls(ingest, name, descriptor)
        os.close(descriptor)
        return None

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.discard()

    def keep(self) -> None:
        """Let go of it and leave it as it is, for the next one to take."""
        os.close(self.descriptor)

    def discard(self) -> None:
        """Remove it with all that is in it. It loses its name first, so that nobody has to wait for the rest."""
        from pyrt._native import remove_tree

        trash = unique("trash")
        try:
            os.rename(self.name, trash, src_dir_fd=self._ingest, dst_dir_fd=self._ingest)
            remove_tree(self._ingest, trash)
        finally:
            os.close(self.descriptor)

    def discard_inside(self, name: str) -> None:
        """Remove one thing in it, if it is there."""
        from pyrt._native import remove_tree

        if exists(name, within=self.descriptor):
            remove_tree(self.descriptor, name)


def _wait_for(descriptor: int, cancelled: Callable[[], bool] | None) -> None:
    if cancelled is None:
        lock(descriptor)
        return
    # flock can't be interrupted from another thread, and the kernel has none with a time limit.
    pause = _FIRST_PAUSE
    while not lock(descriptor, wait=False):
        if cancelled():
            raise Cancelled("waiting for another process to bring in the same layer was cancelled")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
