"""A directory as a tar stream, for the layer that is made of it: owners, times, hardlinks, xattrs, devices.

The directory may be changed meanwhile by somebody else, so everything is opened from its parent's descriptor
without following links. Other file systems below it (/proc of a mounted root) are left out, their mount points kept.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from pyrt.errors import InvalidImage

if TYPE_CHECKING:
    from collections.abc import Collection

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# PAX's name for xattrs, from star; all tools read it.
_XATTR: Final = "SCHILY.xattr."
# A container may have any other; these are the host's own marks on its file system.
_PRIVATE_XATTRS: Final = ("trusted.", "system.", "security.selinux", "security.ima", "security.evm", "user.overlay.")
_WHITEOUT: Final = ".wh."


def write_tree(folder: int, output: int, *, leave_out: Collection[tuple[int, int]] = ()) -> None:
    """Write what is below the open ``folder`` as a tar to ``output``; device and inode numbers tell what to leave out.

    Sockets are left out. ``InvalidImage`` for a name that would be taken for a whiteout.
    """
    stream = cast("BinaryIO", _Output(output))
    with tarfile.open(
        fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 18, errors="surrogateescape"
    ) as tar:
        _Tree(tar, os.fstat(folder).st_dev, frozenset(leave_out)).add_root(folder)


class _Level:
    """A folder that is gone through: its descriptor, and the names in it that are still to come, last first."""

    def __init__(self, prefix: str, folder: int) -> None:
        self.prefix = prefix
        self.folder = folder
        self.names = sorted(os.listdir(folder), reverse=True)


class _Tree:
    def __init__(self, tar: tarfile.TarFile, device: int, leave_out: frozenset[tuple[int, int]]) -> None:
        self._tar = tar
        self._device = device
        self._leave_out = leave_out
        self._linked: dict[tuple[int, int], str] = {}

    def add_root(self, folder: int) -> None:
        self._add_folder(".", folder)
        self._add_contents(folder)

    def _add_contents(self, folder: int) -> None:
        """Depth first, without recursion: a tree may be deeper than Python's stack."""
        levels = [_Level("", os.dup(folder))]
        try:
            while levels:
                level = levels[-1]
                if level.names:
                    inner = self._add_child(level, level.names.pop())
                    levels += [inner] if inner else []
                else:
                    os.close(levels.pop().folder)
        finally:
            for level in levels:
                os.close(level.folder)

    def _add_child(self, level: _Level, name: str) -> _Level | None:
        """Add one entry; a folder of this file system is returned, to be gone through next."""
        path = level.prefix + name
        if name.startswith(_WHITEOUT):
            raise InvalidImage(f"{path} can't be in a layer: names that begin with .wh. delete files there")
        status = os.stat(name, dir_fd=level.folder, follow_symlinks=False)
        if (status.st_dev, status.st_ino) in self._leave_out:
            return None
        if stat.S_ISDIR(status.st_mode):
            return self._enter(path, os.open(name, _FOLDER, dir_fd=level.folder))
        if stat.S_ISREG(status.st_mode):
            self._add_file(path, name, level.folder)
        elif not stat.S_ISSOCK(status.st_mode):
            self._add_special(path, name, level.folder, status)
        return None

    def _enter(self, path: str, folder: int) -> _Level | None:
        try:
            self._add_folder(path, folder)
            if os.fstat(folder).st_dev == self._device:
                return _Level(f"{path}/", os.dup(folder))
        finally:
            os.close(folder)
        return None

    def _add_folder(self, path: str, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self._tar.addfile(_member(path, status, tarfile.DIRTYPE, _xattrs(descriptor)))

    def _add_file(self, path: str, name: str, folder: int) -> None:
        descriptor = os.open(name, _FILE, dir_fd=folder)
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidImage(f"{path} was replaced while it was read")
            first = self._first_of(path, status)
            if first:
                member = _member(path, status, tarfile.LNKTYPE, {})
                member.linkname = first
                self._tar.addfile(member)
                return
            member = _member(path, status, tarfile.REGTYPE, _xattrs(descriptor))
            member.size = status.st_size
            try:
                self._tar.addfile(member, cast("BinaryIO", file))
            except OSError as error:
                if str(error) == "unexpected end of data":
                    raise InvalidImage(f"{path} became shorter while it was read") from error
                raise

    def _add_special(self, path: str, name: str, folder: int, status: os.stat_result) -> None:
        first = self._first_of(path, status)
        member = _member(path, status, tarfile.LNKTYPE if first else _KINDS[stat.S_IFMT(status.st_mode)], {})
        if first:
            member.linkname = first
        elif stat.S_ISLNK(status.st_mode):
            member.linkname = os.readlink(name, dir_fd=folder)
        elif not stat.S_ISFIFO(status.st_mode):
            member.devmajor, member.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        self._tar.addfile(member)

    def _first_of(self, path: str, status: os.stat_result) -> str | None:
        """The name under which this inode was added before, if it was."""
        if status.st_nlink < 2:
            return None
        first = self._linked.setdefault((status.st_dev, status.st_ino), path)
        return None if first == path else first


_KINDS: Final = {
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


class _Output:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        return len(data)


def _member(path: str, status: os.stat_result, kind: bytes, xattrs: dict[str, str]) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.type = kind
    member.mode = stat.S_IMODE(status.st_mode)
    member.uid, member.gid = status.st_uid, status.st_gid
    seconds, nanoseconds = divmod(status.st_mtime_ns, 1_000_000_000)
    member.mtime = seconds
    if nanoseconds or seconds < 0:
        # As text: tarfile's own number is a float, which has no room for nanoseconds.
        xattrs = {"mtime": _decimal(status.st_mtime_ns), **xattrs}
    member.pax_headers = xattrs
    return member


def _decimal(nanoseconds: int) -> str:
    sign, value = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    return f"{sign}{value // 1_000_000_000}.{value % 1_000_000_000:09}"


def _xattrs(descriptor: int) -> dict[str, str]:
    found = {}
    for name in _names_of_xattrs(descriptor):
        if not name.startswith(_PRIVATE_XATTRS):
            found[_XATTR + name] = os.getxattr(descriptor, name).decode("utf-8", "surrogateescape")
    return found


def _names_of_xattrs(descriptor: int) -> list[str]:
    try:
        return os.listxattr(descriptor)
    except OSError as error:
        # A file system without any.
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise
