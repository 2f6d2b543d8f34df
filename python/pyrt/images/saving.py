"""Where saved images go: a tar in a file or a pipe, or a folder; a file or a folder is whole or is not there."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, cast

import msgspec

from pyrt.errors import HostError, InvalidImage, UsageError
from pyrt.images.compression import PIECE
from pyrt.images.durable import unique, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrt.images.compression import Readable
    from pyrt.images.image import Image
    from pyrt.images.reference import Reference

_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Selected(msgspec.Struct, frozen=True):
    """An image to be saved, and those of its names that were asked for."""

    image: Image
    names: tuple[Reference, ...]


class Writer(Protocol):
    def add(self, path: str, data: bytes) -> None: ...
    def add_stream(self, path: str, stream: Readable, size: int) -> None:
        """The stream must give just so many bytes."""
        ...


@contextmanager
def tar_writer(destination: str | os.PathLike[str] | int) -> Iterator[Writer]:
    """A tar on its way to a descriptor, which stays the caller's, or to a path, which is replaced at the end."""
    if isinstance(destination, int):
        with _write_errors("the archive"), _tar(destination) as tar:
            yield _TarWriter(tar)
        return
    path = os.fspath(destination)
    with _write_errors(path), _output_file(path) as descriptor, _tar(descriptor) as tar:
        yield _TarWriter(tar)


@contextmanager
def folder_writer(destination: str | os.PathLike[str]) -> Iterator[Writer]:
    """A new folder, or one that is still empty; on failure it is as it was."""
    path = os.fspath(destination)
    with _write_errors(path):
        part = os.path.join(os.path.dirname(os.path.abspath(path)), f".{os.path.basename(path)}.{unique('part')}")
        if os.path.lexists(path) and (not os.path.isdir(path) or os.listdir(path)):
            raise UsageError(f"{path} is there already and not empty", hint="name a folder that does not exist yet")
        os.mkdir(part)
        try:
            yield _FolderWriter(part)
            # rename(2) replaces an empty folder.
            os.rename(part, path)
        except BaseException:
            _remove(part)
            raise


class _TarWriter:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def add(self, path: str, data: bytes) -> None:
        self._tar.addfile(_member(path, len(data)), io.BytesIO(data))

    def add_stream(self, path: str, stream: Readable, size: int) -> None:
        # tarfile asks for just ``size`` bytes; the one read more is the stream's chance to verify itself.
        self._tar.addfile(_member(path, size), cast("BinaryIO", _Exactly(stream)))
        if stream.read(1):
            raise InvalidImage(f"{path} is longer than its {size} bytes")


class _Exactly:
    """Gives as many bytes as are asked for, as tarfile wants it."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size and (piece := self._stream.read(size - len(data))):
            data += piece
        return bytes(data)


class _FolderWriter:
    def __init__(self, path: str) -> None:
        self._path = path

    def add(self, path: str, data: bytes) -> None:
        with self._create(path) as file:
            file.write(data)

    def add_stream(self, path: str, stream: Readable, size: int) -> None:
        del size
        with self._create(path) as file:
            while piece := stream.read(PIECE):
                file.write(piece)

    @contextmanager
    def _create(self, path: str) -> Iterator[BinaryIO]:
        whole = os.path.join(self._path, path)
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        with open(whole, "xb") as file:
            yield file


@contextmanager
def _tar(descriptor: int) -> Iterator[tarfile.TarFile]:
    output = cast("BinaryIO", _Output(descriptor))
    with tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT, bufsize=PIECE) as tar:
        yield tar


class _Output:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> int:
        write_all(self._descriptor, data)
        return len(data)


@contextmanager
def _output_file(path: str) -> Iterator[int]:
    """A descriptor of what will be the file; something that is no file (/dev/stdout, a fifo) is written directly."""
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
        return
    path = os.path.realpath(path)
    part = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{unique('part')}")
    descriptor = os.open(part, _NEW_FILE, 0o666)
    try:
        yield descriptor
        os.rename(part, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(part)
        raise
    finally:
        os.close(descriptor)


@contextmanager
def _write_errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostError(f"can't write {path}: {error.strerror or error}") from error


def _member(path: str, size: int) -> tarfile.TarInfo:
    """The same images give the same tar: no time, no owner."""
    member = tarfile.TarInfo(path)
    member.size = size
    member.mode = 0o644
    return member


def _remove(path: str) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)
