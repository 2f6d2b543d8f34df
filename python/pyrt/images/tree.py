"""A directory as a tar stream, for the layer that is made of it: owners, times, hardlinks, xattrs, devices.

The directory may be changed meanwhile by somebody else, so everything is opened from its parent's descriptor
without following links, and looked at before it is opened for reading: a device acts when it is opened.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from pyrt.errors import InvalidImage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# PAX's name for xattrs, from star; all tools read it.
_XATTR: Final = "SCHILY.xattr."
# A container may have any other; these are the host's own marks on its file system.
_PRIVATE_XATTRS: Final = ("trusted.", "system.", "security.selinux", "security.ima", "security.evm", "user.overlay.")
_WHITEOUT: Final = ".wh."
_PIECE: Final = 1 << 18


def write_tree(folder: int, output: int, *, leave_out: Collection[tuple[int, int]] = ()) -> None:
    """Write what is below the open ``folder`` as a tar to ``output``; device and inode numbers tell what to leave out.

    Sockets are left out, and other file systems (/proc of a mounted root), whose mount points are kept.
    ``InvalidImage`` for a name that would be taken for a whiteout, and for what changes meanwhile.
    """
    with _open_tar(output) as tar:
        _Tree(tar, os.fstat(folder).st_dev, frozenset(leave_out)).add_root(folder)


def write_living_tree(
    place: int, name: str, output: int, *, owner: Callable[[int], int], empty: Collection[str] | None = None
) -> None:
    """Write a file or a directory that is in use, ``place`` (opened by O_PATH), to ``output`` as the entry ``name``.

    What goes while it is read is left out, what shrinks is filled up with zeros. ``owner`` makes ids of those that are
    found. ``empty``: stay in one file system, and write of files at these paths, which are mounts, no more than that
    they are there; None for all that is there to be seen.
    """
    with _open_tar(output) as tar:
        device = os.fstat(place).st_dev if empty is not None else None
        tree = _LivingTree(tar, device, owner, frozenset(empty or ()))
        if stat.S_ISDIR(os.fstat(place).st_mode):
            folder = os.open(".", _FOLDER, dir_fd=place)
            try:
                tree.add_root(folder, name)
            finally:
                os.close(folder)
        else:
            tree.add_place(name, place)


def _open_tar(output: int) -> tarfile.TarFile:
    stream = cast("BinaryIO", _Output(output))
    return tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE, errors="surrogateescape")


class _Level:
    """A folder that is gone through: its descriptor, and the names in it that are still to come, last first."""

    def __init__(self, prefix: str, folder: int) -> None:
        self.prefix = prefix
        self.folder = folder
        self.names = sorted(os.listdir(folder), reverse=True)


class _Tree:
    def __init__(self, tar: tarfile.TarFile, device: int | None, leave_out: frozenset[tuple[int, int]]) -> None:
        self._tar = tar
        self._device = device
        self._leave_out = leave_out
        self._linked: dict[tuple[int, int], str] = {}

    def add_root(self, folder: int, name: str = ".") -> None:
        self._add_folder(name, folder)
        self._add_contents(folder, "" if name == "." else f"{name}/")

    def _add_contents(self, folder: int, prefix: str) -> None:
        """Depth first, without recursion: a tree may be deeper than Python's stack."""
        levels = [_Level(prefix, os.dup(folder))]
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
        self._check(path, name)
        place = os.open(name, _PLACE, dir_fd=level.folder)
        try:
            status = os.fstat(place)
            if (status.st_dev, status.st_ino) in self._leave_out:
                return None
            if stat.S_ISDIR(status.st_mode):
                return self._enter(path, os.open(".", _FOLDER, dir_fd=place))
            self.add_place(path, place)
            return None
        finally:
            os.close(place)

    def _check(self, path: str, name: str) -> None:
        if name.startswith(_WHITEOUT):
            raise InvalidImage(f"{path} can't be in a layer: names that begin with .wh. delete files there")

    def add_place(self, path: str, place: int) -> None:
        """Add something that is no folder."""
        status = os.fstat(place)
        if stat.S_ISREG(status.st_mode):
            self._add_file(path, place)
        elif not stat.S_ISSOCK(status.st_mode):
            self._add_special(path, place, status)

    def _enter(self, path: str, folder: int) -> _Level | None:
        try:
            self._add_folder(path, folder)
            if self._device in (None, os.fstat(folder).st_dev):
                return _Level(f"{path}/", os.dup(folder))
        finally:
            os.close(folder)
        return None

    def _add_folder(self, path: str, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self._tar.addfile(self._member(path, status, tarfile.DIRTYPE, _xattrs(descriptor)))

    def _add_file(self, path: str, place: int) -> None:
        # The very file that was looked at, whatever has its name by now.
        descriptor = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            first = self._first_of(path, status)
            if first:
                member = self._member(path, status, tarfile.LNKTYPE, {})
                member.linkname = first
                self._tar.addfile(member)
                return
            member = self._member(path, status, tarfile.REGTYPE, _xattrs(descriptor))
            self._add_content(member, status.st_size, file)

    def _add_content(self, member: tarfile.TarInfo, size: int, file: io.FileIO) -> None:
        member.size = size
        try:
            self._tar.addfile(member, cast("BinaryIO", file))
        except OSError as error:
            if str(error) == "unexpected end of data":
                raise InvalidImage(f"{member.name} became shorter while it was read") from error
            raise

    def _add_special(self, path: str, place: int, status: os.stat_result) -> None:
        first = self._first_of(path, status)
        member = self._member(path, status, tarfile.LNKTYPE if first else _KINDS[stat.S_IFMT(status.st_mode)], {})
        if first:
            member.linkname = first
        elif stat.S_ISLNK(status.st_mode):
            member.linkname = os.readlink("", dir_fd=place)
        elif not stat.S_ISFIFO(status.st_mode):
            member.devmajor, member.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        self._tar.addfile(member)

    def _member(self, path: str, status: os.stat_result, kind: bytes, xattrs: dict[str, str]) -> tarfile.TarInfo:
        return _member(path, status, kind, xattrs)

    def _first_of(self, path: str, status: os.stat_result) -> str | None:
        """The name under which this inode was added before, if it was."""
        if status.st_nlink < 2:
            return None
        first = self._linked.setdefault((status.st_dev, status.st_ino), path)
        return None if first == path else first


# What a name can turn out to be that was something else, or nothing, a moment ago.
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})


class _LivingTree(_Tree):
    """Of something that changes while it is read."""

    def __init__(
        self, tar: tarfile.TarFile, device: int | None, owner: Callable[[int], int], empty: frozenset[str]
    ) -> None:
        super().__init__(tar, device, frozenset())
        self._owner = owner
        self._empty = empty

    def _check(self, path: str, name: str) -> None:
        pass

    def _add_child(self, level: _Level, name: str) -> _Level | None:
        try:
            return super()._add_child(level, name)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise

    def _add_content(self, member: tarfile.TarInfo, size: int, file: io.FileIO) -> None:
        if member.name in self._empty:
            self._tar.addfile(member)
            return
        member.size = size
        self._tar.addfile(member, cast("BinaryIO", _Filled(file)))

    def _member(self, path: str, status: os.stat_result, kind: bytes, xattrs: dict[str, str]) -> tarfile.TarInfo:
        member = super()._member(path, status, kind, xattrs)
        if self._device in (None, status.st_dev) or not member.isdir():
            member.uid, member.gid = self._owner(status.st_uid), self._owner(status.st_gid)
        else:
            member.uid = member.gid = 0  # What is mounted there may be nobody's.
        return member


class _Filled:
    """A file that never ends too early."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return (self._file.read(size) or b"").ljust(size, b"\0")


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
