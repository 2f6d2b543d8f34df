"""Content-addressed files: what is read is what its digest says, or is put aside and never used.

Small ones (manifests, configurations) are read whole and within a bound, layers as a stream.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Final

from pyrt.errors import InvalidImage
from pyrt.images.durable import create_file, state_errors, unique, write_all
from pyrt.images.image import hex_of
from pyrt.images.scratch import Scratch

if TYPE_CHECKING:
    from pyrt.images.layout import Layout

DAMAGED: Final = ".damaged"
_REMEDY: Final = "pull or load the image again"
_PIECE: Final = 1 << 20


class Blobs:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._path = layout.root / "blobs" / "sha256"

    def put(self, data: bytes) -> str:
        """Keep these bytes, durably, and return their digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        with state_errors("write to", self._path):
            if self._has(digest, data):
                return digest
            with Scratch.fresh(self._layout.ingest) as scratch:
                _write_durably(data, scratch)
                os.rename("blob", hex_of(digest), src_dir_fd=scratch.descriptor, dst_dir_fd=self._layout.blobs)
                os.fsync(self._layout.blobs)
        return digest

    def read(self, digest: str, *, limit: int, what: str) -> bytes:
        """All the bytes, verified. ``InvalidImage`` calls them ``what``: "the configuration of debian:12"."""
        descriptor = self.open(digest, what=what)
        try:
            with state_errors("read", self._path / hex_of(digest)):
                data = _read_within(descriptor, limit)
        finally:
            os.close(descriptor)
        if data is None or hashlib.sha256(data).hexdigest() != hex_of(digest):
            self.quarantine(digest, what=what)
        assert data is not None
        return data

    def open(self, digest: str, *, what: str) -> int:
        """A descriptor of its bytes, not verified: who reads them has to, and to call ``quarantine``."""
        name = hex_of(digest)
        with state_errors("read", self._path / name):
            try:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(name, flags, dir_fd=self._layout.blobs)
            except FileNotFoundError:
                raise InvalidImage(f"{what} is gone from the store ({digest})", hint=_REMEDY) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            self.quarantine(digest, what=what)
        return descriptor

    def quarantine(self, digest: str, *, what: str) -> None:
        """Put a damaged blob aside, so that it is fetched again and never used; always raises ``InvalidImage``."""
        name = hex_of(digest)
        aside = f"{unique(name)}{DAMAGED}"
        with state_errors("put aside", self._path / name), contextlib.suppress(FileNotFoundError):
            os.rename(name, aside, src_dir_fd=self._layout.blobs, dst_dir_fd=self._layout.blobs)
        raise InvalidImage(
            f"{what} is damaged: its bytes are not those of {digest}",
            hint=f"{_REMEDY}; the bytes are kept as {self._path / aside} until the next image prune",
        )

    def reader(self, digest: str, *, what: str) -> VerifiedReader:
        """Its bytes as a stream whose end is an error if they were not the right ones."""
        return VerifiedReader(self, digest, self.open(digest, what=what), what)

    def _has(self, digest: str, data: bytes) -> bool:
        try:
            descriptor = os.open(hex_of(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._layout.blobs)
        except FileNotFoundError:
            return False
        try:
            return _read_within(descriptor, len(data)) == data
        finally:
            os.close(descriptor)


class VerifiedReader:
    """Reads a blob once, from its beginning; ``read`` raises ``InvalidImage`` instead of returning the end."""

    def __init__(self, blobs: Blobs, digest: str, descriptor: int, what: str) -> None:
        self.size = os.fstat(descriptor).st_size
        self._blobs = blobs
        self._digest = digest
        self._what = what
        self._descriptor = descriptor
        self._hash = hashlib.sha256()

    def __enter__(self) -> VerifiedReader:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self, size: int = _PIECE) -> bytes:
        data = os.read(self._descriptor, size)
        self._hash.update(data)
        if not data and size and self._hash.hexdigest() != hex_of(self._digest):
            self._blobs.quarantine(self._digest, what=self._what)
        return data


def _write_durably(data: bytes, scratch: Scratch) -> None:
    descriptor = create_file("blob", within=scratch.descriptor)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_within(descriptor: int, limit: int) -> bytes | None:
    """The whole file, or None if it is longer than that."""
    data = bytearray()
    while len(data) <= limit:
        piece = os.read(descriptor, min(_PIECE, limit + 1 - len(data)))
        if not piece:
            return bytes(data)
        data += piece
    return None
