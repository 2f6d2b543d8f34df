"""A tar becomes files below a folder of a container, or of this machine, whatever the container does meanwhile.

Both are an enemy's: a tar that came out of a container may lead out of the folder by its names and links, and a folder
within a container may be exchanged for a link at any moment (CVE-2018-15664, CVE-2026-42306). So each name is one part
below a descriptor that was opened without following links; within a container the way there is the kernel's to walk,
with the container's root for /.
"""

from __future__ import annotations

import os
import stat
import tarfile
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import msgspec

from pyrt._native import open_in_root
from pyrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SAME_FILE: Final = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE: Final = 1 << 18
_XATTR: Final = "SCHILY.xattr."
_SET_ID: Final = stat.S_ISUID | stat.S_ISGID


class Ownership(msgspec.Struct, frozen=True):
    """Whom files belong to. ``all``: this user and group, instead of those of the tar. ``base``: added to every id.

    ``rights``: set-id bits, attributes and devices are kept; without, what a container holds can't act on the host.
    """

    all: tuple[int, int] | None = None
    base: int = 0
    rights: bool = False


class Target:
    """Where the entries of a tar go: ``path`` below the open ``root``.

    ``inside``: of a container, whose links are followed with its root for /; else no link below ``path`` is.
    """

    def __init__(self, root: int, path: str, *, inside: bool) -> None:
        self.root = root
        self.path = path.rstrip("/") or "/"
        self.is_folder = path.endswith("/")
        """Whether it was written as one."""
        self.inside = inside
        self._parent: tuple[tuple[str, ...], int] | None = None

    def open(self, path: str, flags: int) -> int:
        """Opens something at a path of the user's."""
        return open_in_root(self.root, path, flags | os.O_CLOEXEC)

    def folder(self, parts: tuple[str, ...], make: Callable[[int, str], None]) -> int:
        """The folder of these names below ``path``, made where it is missing. Stays this object's."""
        if self._parent and self._parent[0] == parts:
            return self._parent[1]
        descriptor = self.open(self.path, _FOLDER)
        for count, part in enumerate(parts, 1):
            try:
                inner = self._step(descriptor, parts[:count], part, make)
            finally:
                os.close(descriptor)
            descriptor = inner
        self.close()
        self._parent = parts, descriptor
        return descriptor

    def _step(self, folder: int, way: tuple[str, ...], part: str, make: Callable[[int, str], None]) -> int:
        try:
            return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            make(folder, part)
            return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        except NotADirectoryError:
            # A link, perhaps to a folder, as /var/run is one.
            if not self.inside:
                raise
            return self.open("/".join((self.path, *way)), _FOLDER)

    def close(self) -> None:
        """Closes what it holds; the root stays the caller's."""
        if self._parent:
            os.close(self._parent[1])
            self._parent = None


def unpack(source: int, target: Target, ownership: Ownership, *, whole: bool = False) -> None:
    """Extracts a tar, compressed or not. With ``whole`` its first entry is what is copied, and decides where it goes.

    That is as ``cp`` has it: into a folder that is there, else it gets the target's name. An entry "." is the contents
    of a folder. Raises UsageError where that can't be, OSError.
    """
    with os.fdopen(os.dup(source), "rb") as stream:
        try:
            with tarfile.open(fileobj=cast("BinaryIO", stream), mode="r|*", errors="surrogateescape") as tar:
                _Unpacker(tar, target, ownership).run(whole=whole)
        except tarfile.TarError as error:
            raise UsageError(f"what is to be unpacked is no tar, or a damaged one: {error}") from None
        finally:
            target.close()
        # Whoever writes is not to be cut off behind the tar's end.
        while stream.read(_PIECE):
            pass


class _Unpacker:
    def __init__(self, tar: tarfile.TarFile, target: Target, ownership: Ownership) -> None:
        self._tar = tar
        self._target = target
        self._ownership = ownership
        self._rename: tuple[str, str] | None = None
        # Set at the end: to make something in a folder changes its times, and its mode may forbid it.
        self._folders: list[tuple[tuple[str, ...], tarfile.TarInfo]] = []

    def run(self, *, whole: bool) -> None:
        for member in self._tar:
            if whole:
                self._settle(member)
                whole = False
            self._add(member, self._parts(member.name))
        for parts, member in reversed(self._folders):
            self._finish_folder(parts, member)

    # ---- where the whole goes ----

    def _settle(self, first: tarfile.TarInfo) -> None:
        """docker-cp(1): what is there at the target, and what comes, say together what is meant."""
        name, wanted = first.name.strip("/") or ".", self._target.path
        slash = self._target.is_folder
        kind = self._kind_of(wanted)
        if kind == "folder":
            if first.isdir() or name == ".":
                return
            self._refuse_folder_in_the_way(wanted, name)
            return
        if kind == "file" and (first.isdir() or slash):
            what = "a folder can't be copied over a file" if first.isdir() else "it is a file, not a folder"
            raise UsageError(f"{wanted}: {what}")
        if kind == "nothing" and slash and not first.isdir():
            raise UsageError(f"there is no folder {wanted}", hint="make it first, or leave the / at its end out")
        parent, _, own = wanted.rpartition("/")
        self._target.path = parent or "/"
        if self._kind_of(self._target.path) != "folder":
            raise UsageError(f"there is no folder {self._target.path} to copy to", hint="make it first")
        self._rename = (name, own)

    def _refuse_folder_in_the_way(self, folder: str, name: str) -> None:
        if self._kind_of(f"{folder}/{name}") == "folder":
            raise UsageError(f"{folder}/{name} is a folder, and what is copied is none")

    def _kind_of(self, path: str) -> str:
        try:
            place = self._target.open(path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return "nothing"
        try:
            return "folder" if stat.S_ISDIR(os.fstat(place).st_mode) else "file"
        finally:
            os.close(place)

    def _parts(self, name: str) -> tuple[str, ...]:
        parts = [part for part in name.split("/") if part not in {"", "."}]
        if ".." in parts:
            raise UsageError(f"the tar's entry {name[:200]!r} leads out of the folder")
        if self._rename:
            before, after = self._rename
            if before == ".":
                parts = [after, *parts]
            elif parts[:1] == [before]:
                parts[0] = after
        return tuple(parts)

    # ---- entries ----

    def _add(self, member: tarfile.TarInfo, parts: tuple[str, ...]) -> None:
        if member.isdir():
            self._add_folder(member, parts)
            return
        if not parts:
            return
        folder = self._target.folder(parts[:-1], self._make_folder)
        name = parts[-1]
        if member.isreg():
            self._add_file(member, folder, name)
        elif member.islnk():
            self._add_link(member, folder, name)
        elif member.issym():
            _clear(folder, name)
            os.symlink(member.linkname, name, dir_fd=folder)
            self._own(member, folder, name)
        elif member.isfifo() or (self._ownership.rights and member.isdev()):
            _clear(folder, name)
            kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            device = 0 if member.isfifo() else os.makedev(member.devmajor, member.devminor)
            os.mknod(name, kind | 0o600, device, dir_fd=folder)
            self._own(member, folder, name)
            os.chmod(name, self._mode(member), dir_fd=folder)

    def _make_folder(self, folder: int, name: str) -> None:
        os.mkdir(name, 0o755, dir_fd=folder)
        self._chown(tarfile.TarInfo(), folder, name)

    def _add_folder(self, member: tarfile.TarInfo, parts: tuple[str, ...]) -> None:
        if not parts:
            return  # The folder of the user's choice stays as it is.
        folder = self._target.folder(parts[:-1], self._make_folder)
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=folder)
        except FileExistsError:
            status = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                return  # To a folder, or what is put into it fails; its mode is not ours to change.
            if not stat.S_ISDIR(status.st_mode):
                raise UsageError(f"{'/'.join(parts)} is a file there, and a folder in what is copied") from None
        self._folders.append((parts, member))

    def _finish_folder(self, parts: tuple[str, ...], member: tarfile.TarInfo) -> None:
        with suppress(OSError):  # It has been taken away meanwhile.
            folder = self._target.folder(parts[:-1], self._make_folder)
            place = os.open(parts[-1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                self._finish(member, place)
            finally:
                os.close(place)

    def _add_file(self, member: tarfile.TarInfo, folder: int, name: str) -> None:
        with os.fdopen(_new_file(folder, name), "wb", buffering=0) as file:
            content = self._tar.extractfile(member)
            assert content is not None
            while piece := content.read(_PIECE):
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
            self._finish(member, file.fileno())

    def _add_link(self, member: tarfile.TarInfo, folder: int, name: str) -> None:
        first = self._parts(member.linkname)
        # Of its own: the target keeps the last folder alone.
        here = os.dup(folder)
        try:
            there = self._target.folder(first[:-1], self._make_folder)
            _clear(here, name)
            os.link(first[-1], name, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
        finally:
            os.close(here)

    # ---- owner, mode, times ----

    def _mode(self, member: tarfile.TarInfo) -> int:
        mode = stat.S_IMODE(member.mode)
        return mode if self._ownership.rights else mode & ~_SET_ID

    def _ids(self, member: tarfile.TarInfo) -> tuple[int, int]:
        user, group = self._ownership.all or (member.uid, member.gid)
        return user + self._ownership.base, group + self._ownership.base

    def _chown(self, member: tarfile.TarInfo, folder: int, name: str) -> None:
        os.chown(name, *self._ids(member), dir_fd=folder, follow_symlinks=False)

    def _own(self, member: tarfile.TarInfo, folder: int, name: str) -> None:
        self._chown(member, folder, name)
        with suppress(OSError):
            os.utime(name, ns=(_time(member), _time(member)), dir_fd=folder, follow_symlinks=False)

    def _finish(self, member: tarfile.TarInfo, place: int) -> None:
        """Owner first: chown(2) clears set-id bits."""
        os.fchown(place, *self._ids(member))
        os.fchmod(place, self._mode(member))
        if self._ownership.rights:
            for key, value in member.pax_headers.items():
                if key.startswith(_XATTR):
                    with suppress(OSError):  # The file system has none, or not this one.
                        os.setxattr(place, key.removeprefix(_XATTR), value.encode("utf-8", "surrogateescape"))
        os.utime(place, ns=(_time(member), _time(member)))


def _time(member: tarfile.TarInfo) -> int:
    """With nanoseconds, which tarfile's own number has no room for."""
    text = member.pax_headers.get("mtime", "")
    whole, _, rest = text.partition(".")
    if whole.isdigit():
        return int(whole) * 1_000_000_000 + int(rest[:9].ljust(9, "0") or 0)
    return int(member.mtime * 1_000_000_000)


def _new_file(folder: int, name: str) -> int:
    _clear(folder, name)
    try:
        return os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
    except FileExistsError:
        descriptor = os.open(name, _SAME_FILE, dir_fd=folder)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise


def _clear(folder: int, name: str) -> None:
    """Takes away what has the name, but for a folder, which is in the way, and a mount, which can be written to.

    /etc/hosts is one. Looked at before, for the kernel does not protect a mount of another mount namespace: removing
    the name takes the mount away (`detach_mounts`).
    """
    try:
        place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return
    try:
        if stat.S_ISDIR(os.fstat(place).st_mode):
            raise UsageError(f"{name} is a folder there, and none in what is copied")
        mounted = _mount_of(place) != _mount_of(folder)
    finally:
        os.close(place)
    if not mounted:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _mount_of(descriptor: int) -> bytes:
    """proc_pid_fdinfo(5)."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
        return next(line for line in file if line.startswith(b"mnt_id:"))
