"""The outer tar: what GNU tar and Python write is read; what lies is refused."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from pyrt.errors import InvalidImage
from pyrt.images.tarstream import FileSource, PipeSource, TarStream
from tests.images.making import piped, tar_of

if TYPE_CHECKING:
    from pathlib import Path


def read(data: bytes) -> dict[str, bytes | str]:
    """Every member's bytes, or target, through a pipe; and the same from a file."""
    found: dict[str, bytes | str] = {}
    stream = TarStream(PipeSource(io.BytesIO(data), "it"), "it")
    for member in stream:
        if member.target is None:
            content = bytearray()
            while piece := stream.read(1000):
                content += piece
            assert len(content) == member.size
            assert bytes(content) == data[member.offset : member.offset + member.size]
            found[member.name] = bytes(content)
        else:
            found[member.name] = member.target
    with piped(data) as descriptor:
        assert [member.name for member in TarStream(FileSource(descriptor, "it"), "it")] == list(found)
    return found


def test_files_and_links() -> None:
    files = {"a/b": b"1" * 1000, "./c": b"", "a/l": ("symlink", "../c"), "h": ("link", "a/b"), "/d": b"x"}
    assert read(tar_of(files)) == {"a/b": b"1" * 1000, "c": b"", "a/l": "c", "h": "a/b", "d": b"x"}  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "v7"])
def test_what_gnu_tar_writes(tmp_path: Path, form: str) -> None:
    deep = "/".join(["folder" * 5] * 6) if form in ("gnu", "pax") else "folder"
    (tmp_path / deep).mkdir(parents=True)
    (tmp_path / deep / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(f"{deep}/file")
    data = subprocess.run(
        ["tar", "-c", f"--format={form}", "-C", str(tmp_path), "."], capture_output=True, check=True
    ).stdout
    assert read(data) == {f"{deep}/file": b"content", "link": f"{deep}/file"}


def test_names_that_are_not_utf8() -> None:
    name = os.fsdecode(b"caf\xe9")
    assert read(tar_of({name: b"x"})) == {name: b"x"}


def test_a_hostile_name_is_a_key_and_nothing_else() -> None:
    found = read(tar_of({"../../etc/passwd": b"x", "a/../../b": b"y"}))
    assert set(found) == {"../../etc/passwd", "../b"}


def header(name: str = "a", size: int = 0, kind: bytes = b"0") -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.USTAR_FORMAT)


def pax(records: bytes) -> bytes:
    return header("pax", len(records), b"x") + records.ljust(512, b"\0")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello", "cut short"),
        (b"x" * 1024, "it is no tar"),
        (header(size=2000) + b"x" * 100, "cut short"),
        (header("a") + b"x" * 512, "malformed header"),
        (header("a") + header("b")[:100], "cut short"),
        (pax(b"13 size=9999\n") + header(size=512) + b"x" * 512, "two sizes"),
        (pax(b"11 size=-1\n\0") + header(), "no valid size"),
        (pax(b"99 path=a\n") + header(), "malformed PAX"),
        (pax(b"0 path=a\n") + header(), "malformed PAX"),
        (pax(b"nonsense") + header(), "malformed PAX"),
        (pax(b"22 GNU.sparse.major=1\n") + header(), "sparse"),
        (header("x", 1 << 30, b"x"), "a header of"),
        (header("x", 1 << 30, b"L"), "a header of"),
        (header("x", 512, b"S") + b"x" * 512, "unusual kind"),
    ],
)
def test_what_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidImage, match=message):
        read(data)


def test_entries_without_end() -> None:
    class Endless:
        def read(self, size: int, /) -> bytes:
            return (header() * (size // 512 + 1))[:size]

    with pytest.raises(InvalidImage, match="more than"):
        for _ in TarStream(PipeSource(Endless(), "it"), "it"):
            pass
