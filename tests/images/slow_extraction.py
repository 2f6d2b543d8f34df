"""A stand-in for the extension's layer functions where it is not built: slow, plain, and only for honest tars.

It keeps the extension's contract (digests of both forms, a copy of the bytes, a flag that cancels), so that
what is above it can be tested without Rust.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import types
from typing import NamedTuple

from pyrt.errors import InvalidImage, PyrtError


class LayerReport(NamedTuple):
    digest: str
    diff_id: str
    compressed_size: int
    size: int
    entries: int


class CancelFlag:
    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()


def extract_layer(
    source: int, directory: int, *, blob: int | None = None, cancel: CancelFlag | None = None
) -> LayerReport:
    """Reads to the end, then extracts with Python's tarfile."""
    content = bytearray()
    while chunk := os.read(source, 1 << 16):
        if cancel and cancel.is_set():
            raise PyrtError("cancelled")
        content += chunk
        if blob is not None:
            os.write(blob, chunk)
    if cancel and cancel.is_set():
        raise PyrtError("cancelled")
    plain = _decompressed(bytes(content))
    try:
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            members = archive.getmembers()
            archive.extractall(f"/proc/self/fd/{directory}", members, filter="fully_trusted")
    except (tarfile.TarError, OSError) as error:
        raise InvalidImage(f"the layer is damaged: {error}") from error
    return LayerReport(_sha256(content), _sha256(plain), len(content), len(plain), len(members))


def remove_tree(directory: int, name: str) -> None:
    path = f"/proc/self/fd/{directory}/{name}"
    if os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def install() -> None:
    """Put these in the place of what the extension lacks; does nothing where it has them."""
    try:
        import pyrt._native as native
    except ImportError:
        native = types.ModuleType("pyrt._native")
        sys.modules["pyrt._native"] = native
    for stand_in in (CancelFlag, extract_layer, remove_tree):
        if not hasattr(native, stand_in.__name__):
            setattr(native, stand_in.__name__, stand_in)


def _decompressed(content: bytes) -> bytes:
    try:
        if content.startswith(b"\x1f\x8b"):
            return gzip.decompress(content)
    except (EOFError, OSError) as error:
        raise InvalidImage(f"the layer is damaged: {error}") from error
    if content.startswith(b"\x28\xb5\x2f\xfd"):
        return subprocess.run(["zstd", "-dc"], input=content, capture_output=True, check=True).stdout
    return content


def _sha256(content: bytes | bytearray) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
