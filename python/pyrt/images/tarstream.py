"""The outer tar of an image archive, read once from front to back, which a pipe allows no other way.

Only headers are understood here (ustar, PAX, GNU's long names); what is inside is copied or skipped. Names
are keys to look up and are never opened, so a hostile one leads nowhere; sizes and headers are bounded.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from pyrt.errors import InvalidImage
from pyrt.images.compression import PIECE

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK: Final = 512
# Names have at most 4096 bytes in Linux; tools add a comment or a checksum.
_LARGEST_EXTENSION: Final = 64 << 10
# Docker's archive of a hundred images of 127 layers, with four entries a layer.
_MOST_MEMBERS: Final = 50_000
_LARGEST_MEMBER: Final = 1 << 50
_EXTENSIONS: Final = frozenset({b"x", b"g", b"L", b"K"})
_FILES: Final = frozenset({b"0", b"\0", b"7"})
_LINKS: Final = frozenset({b"1", b"2"})


class TarSource(Protocol):
    """Bytes that can be read, and skipped."""

    def read(self, size: int, /) -> bytes: ...
    def skip(self, size: int, /) -> None: ...
    def tell(self) -> int: ...


class Member(msgspec.Struct, frozen=True):
    """A file (``target`` is None) or a link to the ``target`` in the archive. ``offset``: where its bytes begin."""

    name: str
    size: int
    offset: int
    target: str | None = None


class TarStream:
    """Iterate over it for the members; ``read`` gives the bytes of the one at hand, what is not read is skipped."""

    def __init__(self, source: TarSource, name: str) -> None:
        self._source = source
        self._name = name
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        count = 0
        extensions: dict[str, str] = {}
        while (header := self._header(first=count == 0)) is not None:
            count += 1
            if count > _MOST_MEMBERS:
                raise InvalidImage(f"{self._name} is no image archive: it has more than {_MOST_MEMBERS} entries")
            if header.type in _EXTENSIONS:
                extensions |= self._extension(header)
                continue
            member = self._member(header, extensions)
            extensions = {}
            self._left, self._padding = _extent(member.size if member and member.target is None else 0)
            if member:
                yield member
            self._skip_rest()

    def read(self, size: int = PIECE) -> bytes:
        """Up to so many bytes of the member at hand, none at its end."""
        data = self._source.read(min(size, self._left)) if self._left else b""
        if self._left and not data:
            raise self._cut()
        self._left -= len(data)
        return data

    def drain(self) -> None:
        """Read what is behind the tar's end: a checksum may be there, and a writer who would not like to be cut off."""
        while self._source.read(PIECE):
            pass

    def _header(self, *, first: bool) -> tarfile.TarInfo | None:
        block = self._exactly(_BLOCK, at_least_one=first)
        if not block or not any(block):
            return None
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if first:
                raise InvalidImage(
                    f"{self._name} is not an image archive: it is no tar",
                    hint="pyrt loads what docker save, podman save, skopeo and pyrt save write, and OCI layouts",
                ) from error
            raise InvalidImage(f"{self._name} is damaged: its tar has a malformed header ({error})") from error

    def _member(self, header: tarfile.TarInfo, extensions: dict[str, str]) -> Member | None:
        name = _normal(extensions.get("path", header.name))
        if header.type in _LINKS:
            target = extensions.get("linkpath", header.linkname)
            folder = posixpath.dirname(name) if header.type == b"2" else ""
            return Member(name, 0, self._source.tell(), _normal(posixpath.join(folder, target)))
        if header.type in _FILES and not header.name.endswith("/"):
            return Member(name, self._size(header, extensions), self._source.tell())
        if self._size(header, extensions):
            raise InvalidImage(f"{self._name} is no image archive: its entry {name[:100]!r} is of an unusual kind")
        return None

    def _size(self, header: tarfile.TarInfo, extensions: dict[str, str]) -> int:
        size = header.size
        if any(key.startswith("GNU.sparse.") for key in extensions):
            raise InvalidImage(f"{self._name} is no image archive: it has sparse entries")
        if "size" in extensions:
            text = extensions["size"]
            extended = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else -1
            # Two sizes that differ hide entries from one reader or the other (CVE-2025-62518).
            if size not in (0, extended):
                raise InvalidImage(f"{self._name} is ambiguous: an entry has two sizes, {size} and {text[:20]}")
            size = extended
        if not 0 <= size <= _LARGEST_MEMBER:
            raise InvalidImage(f"{self._name} is damaged: an entry has no valid size")
        return size

    def _extension(self, header: tarfile.TarInfo) -> dict[str, str]:
        """What an entry that describes the next one says of it."""
        if not 0 <= header.size <= _LARGEST_EXTENSION:
            raise InvalidImage(f"{self._name} is no image archive: a header of {header.size} bytes")
        data = self._exactly(header.size, at_least_one=True)
        self._left, self._padding = _extent(header.size)
        self._left = 0
        self._skip_rest()
        if header.type == b"L":
            return {"path": _text(data)}
        if header.type == b"K":
            return {"linkpath": _text(data)}
        return self._pax(data) if header.type == b"x" else {}

    def _pax(self, data: bytes) -> dict[str, str]:
        """Records of the form "LENGTH KEY=VALUE\\n" (POSIX pax)."""
        records: dict[str, str] = {}
        while data.rstrip(b"\0"):
            digits, space, _ = data[:10].partition(b" ")
            length = int(digits) if space and digits.isdigit() else 0
            key, equals, value = data[len(digits) + 1 : length].partition(b"=")
            if not len(digits) + 3 <= length <= len(data) or not equals or not value.endswith(b"\n"):
                raise InvalidImage(f"{self._name} is damaged: its tar has a malformed PAX record")
            records[_text(key)] = _text(value[:-1])
            data = data[length:]
        return records

    def _skip_rest(self) -> None:
        self._source.skip(self._left + self._padding)
        self._left = self._padding = 0

    def _exactly(self, size: int, *, at_least_one: bool) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._source.read(size - len(data))
            if not piece:
                break
            data += piece
        if len(data) < size and (data or at_least_one):
            raise self._cut() if data else InvalidImage(f"{self._name} is empty")
        return data

    def _cut(self) -> InvalidImage:
        return cut_short(self._name)


def cut_short(name: str) -> InvalidImage:
    """The archive was not written to its end."""
    return InvalidImage(f"{name} is cut short: its tar ends within an entry")


class FileSource:
    """A regular file: what is skipped is not read."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.descriptor = descriptor
        self._name = name
        self._size = os.fstat(descriptor).st_size
        self._offset = 0

    def read(self, size: int, /) -> bytes:
        data = os.pread(self.descriptor, size, self._offset)
        self._offset += len(data)
        return data

    def skip(self, size: int, /) -> None:
        self._offset += size
        if self._offset > self._size:
            raise cut_short(self._name)

    def tell(self) -> int:
        return self._offset


class PipeSource:
    """Anything else that can be read."""

    def __init__(self, source: _Readable, name: str) -> None:
        self._source = source
        self._name = name
        self._offset = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._offset += len(data)
        return data

    def skip(self, size: int, /) -> None:
        while size:
            piece = self.read(min(size, PIECE))
            if not piece:
                raise cut_short(self._name)
            size -= len(piece)

    def tell(self) -> int:
        return self._offset


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _extent(size: int) -> tuple[int, int]:
    """Bytes of a member, and of the padding up to the next block."""
    return size, -size % _BLOCK


def _normal(name: str) -> str:
    return posixpath.normpath(name.lstrip("/"))


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "surrogateescape")
