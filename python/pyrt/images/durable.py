"""The disk's rules, in one place: private folders, locks, renames that survive a loss of power.

Everything below the state root is made here, with the mode that it is to have whatever the umask is, and
everything that the kernel refuses is said here as a ``StateError`` with what to do about it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import sqlite3
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from pyrt.errors import SCARCE, StateError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Layers hold set-uid files and everybody's secrets: nobody else walks in (CVE-2021-41103).
PRIVATE: Final = 0o700
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_NO_SPACE: Final = "free some space, or remove images that are not needed: pyrt image prune --all"
_NOT_OURS: Final = "run pyrt as the user whose folder it is, or set PYRT_ROOT to another"
_HINTS: Final = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EACCES: _NOT_OURS,
    errno.EPERM: _NOT_OURS,
    errno.EROFS: "its file system is mounted read-only; set PYRT_ROOT to a folder on another",
    errno.EIO: "the disk reports errors; see dmesg",
    errno.EMFILE: SCARCE[errno.EMFILE],
}
_DAMAGED: Final = "move the state folder aside and pull or load the images again"
_SQLITE: Final = {
    sqlite3.SQLITE_FULL: ("the disk is full", _NO_SPACE),
    sqlite3.SQLITE_CORRUPT: ("the database is damaged", _DAMAGED),
    sqlite3.SQLITE_NOTADB: ("the database is damaged", _DAMAGED),
    sqlite3.SQLITE_READONLY: ("the database is not writable", _HINTS[errno.EACCES]),
    sqlite3.SQLITE_CANTOPEN: ("the database can't be opened", _HINTS[errno.EACCES]),
    sqlite3.SQLITE_IOERR: ("reading or writing the database failed", "is the disk full or damaged? See df and dmesg"),
    sqlite3.SQLITE_BUSY: ("the database stays locked", "another process holds it; is a pyrt stopped or hanging?"),
}


@contextmanager
def state_errors(doing: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the kernel or SQLite refuse into a ``StateError``: "can't DOING PATH: reason"."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0)
        raise StateError(f"can't {doing} {os.fspath(path)}: {error.strerror or error}", hint=hint) from error
    except sqlite3.Error as error:
        # The low byte is the primary code, the rest says more: SQLITE_IOERR_WRITE.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        reason, hint = _SQLITE.get(code, (str(error), _DAMAGED))
        raise StateError(f"can't {doing} {os.fspath(path)}: {reason}", hint=hint) from error


def make_folder(name: str, *, within: int | None = None, mode: int = PRIVATE) -> bool:
    """Create a folder with just this mode; False if it is there already, whose mode is then left alone."""
    try:
        os.mkdir(name, mode, dir_fd=within)
    except FileExistsError:
        return False
    os.chmod(name, mode, dir_fd=within)
    return True


def private_folder(name: str, *, within: int | None = None) -> int:
    """Open a folder that only its owner may enter; create it, or correct its mode, if need be."""
    make_folder(name, within=within)
    descriptor = open_folder(name, within=within)
    if os.fstat(descriptor).st_mode & 0o7777 != PRIVATE:
        os.fchmod(descriptor, PRIVATE)
    return descriptor


def open_folder(name: str, *, within: int | None = None) -> int:
    """Open a folder, which must not be a symbolic link."""
    return os.open(name, _FOLDER, dir_fd=within)


def create_file(name: str, *, within: int | None = None, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """Open or create a file of mode 0600 whatever the umask is."""
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=within)
    if os.fstat(descriptor).st_mode & 0o7777 != 0o600:
        os.fchmod(descriptor, 0o600)
    return descriptor


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write everything, however much the kernel takes at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_file_system(descriptor: int) -> None:
    """Wait until everything written to this descriptor's file system is on the disk (syncfs(2)).

    One call for the thousands of files of a layer; since Linux 5.8 it reports what could not be written.
    """
    if _libc().syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def lock(descriptor: int, *, shared: bool = False, wait: bool = True) -> bool:
    """Take the flock of an open file or folder; False only if it is not to wait and another holds it."""
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, operation if wait else operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Give the flock of an open file or folder up."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def still_named(descriptor: int, name: str, *, within: int) -> bool:
    """Whether the name still means this file: who waited for a lock may have got that of a removed one."""
    try:
        now = os.stat(name, dir_fd=within, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(now, os.fstat(descriptor))


def exists(name: str, *, within: int) -> bool:
    try:
        os.stat(name, dir_fd=within, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def unique(prefix: str) -> str:
    """A name that nobody else uses."""
    return f"{prefix}-{secrets.token_hex(8)}"


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)
