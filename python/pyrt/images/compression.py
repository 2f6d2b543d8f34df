"""Plain bytes from compressed ones, as a stream of bounded memory: the outer tar of an archive, a layer's blob.

Layers on their way into the store are decompressed by the extension; this is for the rest. The kind is told
by the first bytes, never by a name.
"""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from typing import TYPE_CHECKING, Any, Final, Protocol

from pyrt.errors import InvalidImage

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE: Final = 1 << 18
# What the strongest presets of xz (-9) and zstd (--ultra -22, --long=27) need; more is asked for by bombs alone.
_XZ_MEMORY: Final = 128 << 20
_ZSTD_WINDOW: Final = 27
# gzip's best is 1,032 to 1; a disk of zeros may be worth that much, but not for ever.
_BOMB_RATIO: Final = 1000
_BOMB_FLOOR: Final = 4 << 30


class Readable(Protocol):
    """``read(n)`` gives 1 to n bytes, or none at the end."""

    def read(self, size: int, /) -> bytes: ...


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def kind_of(head: bytes) -> str:
    """The compression that the first 6 bytes tell of: "gzip", "bzip2", "xz", "zstd", or "" for none of these."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"BZh"):
        return "bzip2"
    if head.startswith(b"\xfd7zXZ\x00"):
        return "xz"
    # The second is a skippable frame (RFC 8878, 3.1.2), with which parallel compressors begin.
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return "zstd"
    return ""


def plain(source: Readable, name: str) -> Readable:
    """The source's bytes, decompressed if they are compressed. Damage is an ``InvalidImage`` that calls it ``name``."""
    head = _at_least(source, 6)
    start = _Prefixed(head, source)
    kind = kind_of(head)
    return _Plain(start, _DECOMPRESSORS[kind], kind, name) if kind else start


class _Prefixed:
    def __init__(self, head: bytes, source: Readable) -> None:
        self._head = head
        self._source = source

    def read(self, size: int, /) -> bytes:
        if not self._head:
            return self._source.read(size)
        data, self._head = self._head[:size], self._head[size:]
        return data


class _Plain:
    """Several members, one after the other, are one stream; padding and garbage behind the last are ignored."""

    def __init__(self, source: Readable, make: Callable[[], _Decompressor], kind: str, name: str) -> None:
        self._source = source
        self._make = make
        self._kind = kind
        self._name = name
        self._member: _Decompressor | None = make()
        self._rest = b""
        self._taken = 0
        self._given = 0

    def read(self, size: int, /) -> bytes:
        while self._member:
            data = self._some(self._member, size)
            if data:
                self._refuse_bomb(len(data))
                return data
            if self._member.eof:
                self._member = self._next_member(self._member.unused_data)
        return b""

    def _some(self, member: _Decompressor, size: int) -> bytes:
        fresh = b""
        if member.needs_input and not member.eof:
            fresh = self._rest or self._more()
            self._rest = b""
            if not fresh:
                raise InvalidImage(f"{self._name} is cut short: its {self._kind} data has no end")
        try:
            return member.decompress(fresh, size) if not member.eof else b""
        except (zlib.error, lzma.LZMAError, OSError, ValueError) as error:
            raise InvalidImage(f"{self._name} is damaged: {self._kind}: {error}") from error
        except Exception as error:
            # zstd's own class can't be named before the module is imported.
            if type(error).__name__ != "ZstdError":
                raise
            raise InvalidImage(f"{self._name} is damaged: zstd: {error}") from error

    def _next_member(self, rest: bytes) -> _Decompressor | None:
        head = rest + _at_least(_Counting(self), max(0, 6 - len(rest)))
        if kind_of(head) != self._kind:
            return None
        self._rest = head
        return self._make()

    def _more(self) -> bytes:
        data = self._source.read(PIECE)
        self._taken += len(data)
        return data

    def _refuse_bomb(self, size: int) -> None:
        self._given += size
        if self._given > _BOMB_FLOOR and self._given > _BOMB_RATIO * self._taken:
            raise InvalidImage(f"{self._name} is a bomb: {self._taken} bytes have become {self._given}")


class _Counting:
    def __init__(self, stream: _Plain) -> None:
        self._stream = stream

    def read(self, _: int, /) -> bytes:
        return self._stream._more()


class _Gzip:
    """zlib's object with the interface of the others."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail and not self._full

    def decompress(self, data: bytes, max_length: int) -> bytes:
        plain_bytes = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        # It may hold back output with all of the input taken.
        self._full = len(plain_bytes) == max_length
        return plain_bytes


def _zstd() -> _Decompressor:
    module: Any
    if sys.version_info >= (3, 14):
        from compression import zstd as module
    else:
        from backports import zstd as module
    options = {module.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
    decompressor: _Decompressor = module.ZstdDecompressor(options=options)
    return decompressor


_DECOMPRESSORS: Final[dict[str, Callable[[], _Decompressor]]] = {
    "gzip": _Gzip,
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY),
    "zstd": _zstd,
}


def _at_least(source: Readable, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = source.read(size - len(data))
        if not piece:
            break
        data += piece
    return data
