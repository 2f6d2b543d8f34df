"""Which engines live: each holds a lock on a file of its own below the state root, for as long as its process lives.

A lock that can be taken belongs to an engine that is dead, however it died.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from pathlib import Path


@final
class Owner:
    """This engine's lock. ``id`` is 16 hexadecimal digits."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.id = secrets.token_hex(8)
        self._path = folder / self.id
        # Made under another name and locked before it gets its own: nobody may find it unlocked.
        draft = folder / f".{self.id}"
        self._lock = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            draft.rename(self._path)
        except OSError:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Gives the lock up."""
        self._path.unlink(missing_ok=True)
        os.close(self._lock)

    def forget(self) -> None:
        """Closes this process's copy of the lock, which its parent still holds: after a fork."""
        os.close(self._lock)


def is_alive(folder: Path, owner: str) -> bool:
    """Whether the engine of this id lives."""
    try:
        descriptor = os.open(folder / owner, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def bury(folder: Path, owner: str) -> None:
    """Removes what a dead engine left of its lock."""
    (folder / owner).unlink(missing_ok=True)
