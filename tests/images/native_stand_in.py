"""Stands in for ``pyrt._native`` where the extension is not built: slow, and without its defences.

To be deleted together with the one line of ``making.py`` that imports it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import types
from typing import Any

import msgspec

from pyrt.errors import InvalidImage, StateError
from pyrt.images.compression import plain


class LayerReport(msgspec.Struct):
    digest: str
    diff_id: str
    compressed_size: int
    size: int
    opaque_root: bool


class CancelFlag:
    def __init__(self) -> None:
        self.cancelled = False

    def set(self) -> None:
        self.cancelled = True


class _Tee:
    def __init__(self, descriptor: int, blob: int | None, cancel: CancelFlag | None) -> None:
        self.descriptor, self.blob, self.cancel = descriptor, blob, cancel
        self.hash, self.size = hashlib.sha256(), 0

    def read(self, size: int) -> bytes:
        if self.cancel and self.cancel.cancelled:
            raise StateError("cancelled")
        data = os.read(self.descriptor, min(size, 65536))
        self.hash.update(data)
        self.size += len(data)
        view = memoryview(data)
        while view and self.blob is not None:
            view = view[os.write(self.blob, view) :]
        return data


class _Counted:
    def __init__(self, stream: Any) -> None:
        self.stream, self.hash, self.size = stream, hashlib.sha256(), 0
        self.padding = 1535

    def read(self, size: int) -> bytes:
        out = bytearray()
        while len(out) < size and (data := self.stream.read(size - len(out))):
            self.hash.update(data)
            out += data
        self.size += len(out)
        if not self.size:
            return b""
        # umoci leaves away the padding of the last file and the end marker, at which Python takes offence.
        padding = min(size - len(out), self.padding)
        self.padding -= padding
        return bytes(out) + b"\0" * padding


def extract_layer(
    source: int, directory: int, *, blob: int | None = None, cancel: CancelFlag | None = None
) -> LayerReport:
    tee = _Tee(source, blob, cancel)
    names: set[str] = set()
    try:
        counted = _Counted(plain(tee, "the layer"))
        with tarfile.open(fileobj=counted, mode="r|") as tar:  # type: ignore[call-overload]
            for member in tar:
                names.add(member.name.removeprefix("./"))
                tar.extract(member, f"/proc/self/fd/{directory}", numeric_owner=True, filter="fully_trusted")
        while counted.read(65536):
            pass
        while tee.read(65536):
            pass
    except (tarfile.TarError, EOFError) as error:
        raise InvalidImage(f"the layer is damaged: {error}") from error
    except OSError as error:
        raise StateError(f"can't extract the layer: {error.strerror}", hint="free some space") from error
    opaque = ".wh..wh..opq" in names
    return LayerReport(
        f"sha256:{tee.hash.hexdigest()}", f"sha256:{counted.hash.hexdigest()}", tee.size, counted.size, opaque
    )


def remove_tree(directory: int, name: str) -> None:
    try:
        shutil.rmtree(name, dir_fd=directory)
    except NotADirectoryError:
        os.unlink(name, dir_fd=directory)


def install() -> None:
    """Take the extension's place, unless it is there and can do this."""
    try:
        import pyrt._native as native

        if hasattr(native, "extract_layer") and hasattr(native, "remove_tree"):
            return
    except ImportError:
        native = types.ModuleType("pyrt._native")
        sys.modules["pyrt._native"] = native
    for name in ("CancelFlag", "LayerReport", "extract_layer", "remove_tree"):
        setattr(native, name, globals()[name])


install()
