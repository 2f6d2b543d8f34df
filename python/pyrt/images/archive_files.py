"""The files of an image archive, by name, wherever they are: in a folder, in a tar on the disk, in a pipe.

A tar on the disk is indexed and its layers copied when they are wanted. A compressed tar, or one from a pipe,
comes in an order of its own, with what explains it at the end: its files go to the store's scratch folder,
one write each, since the file of a layer then becomes its blob.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from pyrt.errors import InvalidImage, UsageError
from pyrt.images.compression import PIECE, kind_of, plain
from pyrt.images.durable import create_file, state_errors, write_all
from pyrt.images.tarstream import FileSource, Member, PipeSource, TarStream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrt.images.scratch import Scratch
    from pyrt.images.store import Store

# Links point at layers of the same archive, one step away.
_MOST_LINKS: Final = 8
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Opened(msgspec.Struct):
    """A file at its beginning. ``place``, if not None, is folder and name of a copy that the store may take over."""

    descriptor: int
    size: int
    place: tuple[int, str] | None = None


class ArchiveFiles(Protocol):
    """``name`` is for messages; files are named as in the archive, without "./"."""

    name: str

    def has(self, path: str) -> bool: ...
    def open(self, path: str) -> Opened:
        """The caller closes the descriptor. ``InvalidImage`` if it is not there or no regular file."""
        ...


@contextmanager
def open_archive(store: Store, source: str | os.PathLike[str] | int) -> Iterator[ArchiveFiles]:
    """The files behind a path or a descriptor, which stays the caller's; to be used within the block only."""
    with ExitStack() as stack:
        if isinstance(source, int):
            descriptor, name = source, "the archive"
        else:
            name = os.fspath(source)
            descriptor = _open_for_reading(name)
            stack.callback(os.close, descriptor)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            yield FolderFiles(descriptor, name)
            return
        with state_errors("unpack an archive in", store.root):
            scratch = stack.enter_context(store.scratch())
            files = _tar_files(scratch, descriptor, name, seekable=stat.S_ISREG(mode))
        yield files


def read_small(files: ArchiveFiles, path: str, *, limit: int) -> bytes:
    """The whole of a file that may not be longer than that."""
    opened = files.open(path)
    try:
        if opened.size > limit:
            raise InvalidImage(f"{path} in {files.name} has {opened.size} bytes, more than the {limit} allowed")
        return _read_all(opened.descriptor, limit)
    finally:
        os.close(opened.descriptor)


class FolderFiles:
    """A folder, such as an OCI layout. No symbolic link in it is followed: it may be somebody else's."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self._descriptor = descriptor

    def has(self, path: str) -> bool:
        try:
            os.close(self.open(path).descriptor)
        except InvalidImage:
            return False
        return True

    def open(self, path: str) -> Opened:
        folder = os.dup(self._descriptor)
        try:
            *parents, last = path.split("/")
            for parent in parents:
                inner = os.open(parent, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = inner
            descriptor = os.open(last, _FILE, dir_fd=folder)
        except OSError as error:
            raise InvalidImage(f"{path} in {self.name} can't be read: {error.strerror}") from error
        finally:
            os.close(folder)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise InvalidImage(f"{path} in {self.name} is not a file")
        return Opened(descriptor, status.st_size)


class TarFiles:
    """A tar: an index of its members, and a folder for those that have been copied out of it."""

    def __init__(self, scratch: Scratch, name: str) -> None:
        self.name = name
        self._scratch = scratch
        self._members: dict[str, Member] = {}

    def has(self, path: str) -> bool:
        return self._find(path) is not None

    def open(self, path: str) -> Opened:
        member = self._find(path)
        if member is None:
            raise InvalidImage(f"{path} is not in {self.name}, which is incomplete")
        name = str(member.offset)
        with state_errors("unpack", self.name):
            self._bring_out(member, name)
        try:
            descriptor = os.open(name, _FILE, dir_fd=self._scratch.descriptor)
        except FileNotFoundError:
            # The store took it over as the blob of another layer.
            raise InvalidImage(f"{path} in {self.name} is named as two different layers") from None
        return Opened(descriptor, member.size, (self._scratch.descriptor, name))

    def _find(self, path: str) -> Member | None:
        for _ in range(_MOST_LINKS):
            member = self._members.get(path)
            if member is None or member.target is None:
                return member
            path = member.target
        return None

    def _bring_out(self, member: Member, name: str) -> None:
        """See to it that the member is a file of its own."""


class SpooledFiles(TarFiles):
    """From a stream: every file is copied out as it comes, the last of those of one name counts."""

    def __init__(self, scratch: Scratch, name: str, stream: TarStream) -> None:
        super().__init__(scratch, name)
        for member in stream:
            self._members[member.name] = member
            if member.target is None:
                self._copy(stream, str(member.offset))
        stream.drain()

    def _copy(self, stream: TarStream, name: str) -> None:
        descriptor = create_file(name, within=self._scratch.descriptor)
        try:
            while piece := stream.read():
                write_all(descriptor, piece)
        finally:
            os.close(descriptor)


class IndexedFiles(TarFiles):
    """From a regular file: only what is wanted is copied, by the kernel, and shared where the file system can."""

    def __init__(self, scratch: Scratch, name: str, source: FileSource) -> None:
        super().__init__(scratch, name)
        self._source = source.descriptor
        self._brought: set[str] = set()
        self._members = {member.name: member for member in TarStream(source, name)}

    def _bring_out(self, member: Member, name: str) -> None:
        if name in self._brought:
            return
        self._brought.add(name)
        target = create_file(name, within=self._scratch.descriptor)
        try:
            copied = 0
            while copied < member.size:
                count = _copy(self._source, target, member.size - copied, member.offset + copied)
                if not count:
                    raise InvalidImage(f"{self.name} is cut short: it ends within {member.name}")
                copied += count
        finally:
            os.close(target)


def _tar_files(scratch: Scratch, descriptor: int, name: str, *, seekable: bool) -> ArchiveFiles:
    if seekable and os.lseek(descriptor, 0, os.SEEK_CUR) == 0 and not kind_of(os.pread(descriptor, 6, 0)):
        return IndexedFiles(scratch, name, FileSource(descriptor, name))
    stream = plain(_Reading(descriptor), name)
    return SpooledFiles(scratch, name, TarStream(PipeSource(stream, name), name))


def _copy(source: int, target: int, size: int, offset: int) -> int:
    """Some bytes from an offset to the end of the target, in the kernel; returns how many."""
    try:
        return os.copy_file_range(source, target, size, offset)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # Only sendfile(2) goes from one file system to another.
        return os.sendfile(target, source, offset, size)


class _Reading:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int, /) -> bytes:
        return os.read(self._descriptor, max(size, 1))


def _open_for_reading(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        hint = "is the path right?" if isinstance(error, FileNotFoundError) else None
        raise UsageError(f"can't read {path}: {error.strerror}", hint=hint) from error


def _read_all(descriptor: int, limit: int) -> bytes:
    data = bytearray()
    while len(data) <= limit and (piece := os.read(descriptor, PIECE)):
        data += piece
    return bytes(data)
