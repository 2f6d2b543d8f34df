"""Streams that real tools compressed, whole, in pieces, cut, damaged and blown up."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import zlib

import pytest

from pyrt.errors import InvalidImage
from pyrt.images import compression
from pyrt.images.compression import kind_of, plain

DATA = random.Random(1).randbytes(300_000) + b"\0" * 500_000 + b"end"
TOOLS = {
    "gzip": ["gzip", "-c"],
    "bzip2": ["bzip2", "-c"],
    "xz": ["xz", "-c"],
    "zstd": ["zstd", "-c", "-q"],
}


class Dribble:
    """Gives as few bytes as it likes."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file = io.BytesIO(data)
        self._most = most

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._most))


def compress(kind: str, data: bytes) -> bytes:
    return subprocess.run(TOOLS[kind], input=data, capture_output=True, check=True).stdout


def read_all(data: bytes, *, most: int = 1 << 20, piece: int = 65536) -> bytes:
    stream = plain(Dribble(data, most), "it")
    read = bytearray()
    while part := stream.read(piece):
        assert len(part) <= piece
        read += part
    return bytes(read)


@pytest.mark.parametrize("kind", TOOLS)
class TestEveryKind:
    def test_is_told_by_its_first_bytes(self, kind: str) -> None:
        assert kind_of(compress(kind, b"x")) == kind

    @pytest.mark.parametrize(("most", "piece"), [(1 << 20, 65536), (1, 65536), (7, 1000), (1 << 20, 100)])
    def test_in_any_pieces(self, kind: str, most: int, piece: int) -> None:
        data = DATA[:5000] + DATA[-20_000:]
        assert read_all(compress(kind, data), most=most, piece=piece) == data

    def test_several_members_are_one_stream(self, kind: str) -> None:
        packed = compress(kind, b"one") + compress(kind, DATA) + compress(kind, b"") + compress(kind, b"two")
        assert read_all(packed) == b"one" + DATA + b"two"
        assert read_all(packed, most=7) == b"one" + DATA + b"two"

    def test_nothing(self, kind: str) -> None:
        assert read_all(compress(kind, b"")) == b""

    def test_cut_short(self, kind: str) -> None:
        packed = compress(kind, DATA)
        for length in (len(packed) - 1, len(packed) // 2, 20):
            with pytest.raises(InvalidImage, match=r"cut short|damaged"):
                read_all(packed[:length])

    def test_damaged(self, kind: str) -> None:
        packed = bytearray(compress(kind, DATA))
        packed[len(packed) // 2] ^= 0xFF
        with pytest.raises(InvalidImage, match="damaged"):
            read_all(bytes(packed))

    def test_padding_and_garbage_behind_it(self, kind: str) -> None:
        assert read_all(compress(kind, b"x") + b"\0" * 1000) == b"x"
        assert read_all(compress(kind, b"x") + b"garbage") == b"x"


def test_plain_bytes_are_left_as_they_are() -> None:
    assert read_all(b"hello") == b"hello"
    assert read_all(b"") == b""
    assert read_all(b"ab", most=1) == b"ab"


def test_a_zstd_stream_that_begins_with_a_skippable_frame() -> None:
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    assert read_all(skippable + compress("zstd", b"x")) == b"x"


def test_a_dictionary_beyond_all_measure() -> None:
    packed = bytearray(lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "preset": 1}]))
    # The block header's byte for the dictionary's size, and its checksum, changed by hand: no memory is needed.
    header = packed[12 : 12 + 4 * (packed[12] + 1)]
    header[4] = 40
    header[-4:] = zlib.crc32(header[:-4]).to_bytes(4, "little")
    packed[12 : 12 + len(header)] = header
    with pytest.raises(InvalidImage, match="damaged: xz"):
        read_all(bytes(packed))


def test_a_zstd_window_beyond_all_measure() -> None:
    # A window descriptor of 2 GiB: exponent 21, mantissa 0 (RFC 8878, 3.1.1.1.2); then a last, empty raw block.
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + b"\x01\x00\x00"
    with pytest.raises(InvalidImage, match="damaged: zstd"):
        read_all(frame)


def test_a_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_BOMB_FLOOR", 1 << 20)
    bomb = bz2.compress(b"\0" * (8 << 20))
    with pytest.raises(InvalidImage, match="bomb"):
        read_all(bomb)
    assert len(read_all(gzip.compress(os.urandom(2 << 20)))) == 2 << 20
