"""``import``: an image with one layer from a root file system, a directory or a tar.

With this, an image needs nothing but Debian: a folder that holds busybox-static, or an mmdebstrap tree.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from pyrt.errors import InvalidImage, UsageError
from pyrt.images import platform as platforms
from pyrt.images.changes import apply_changes
from pyrt.images.composing import compose_manifest
from pyrt.images.config import History, ImageConfig, encode_config
from pyrt.images.durable import state_errors
from pyrt.images.manifest import OCI_MANIFEST
from pyrt.images.reference import Reference
from pyrt.images.tree import write_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyrt.images.image import Image
    from pyrt.images.ingestion import Layer, LayerIngestion
    from pyrt.images.platform import Platform
    from pyrt.images.store import Store

# What any user may have; the default of 64 KiB makes reader and writer take turns.
_PIPE_BYTES: Final = 1 << 20
_IMAGE_FILES: Final = ("manifest.json", "index.json", "oci-layout")


def import_rootfs(
    store: Store,
    source: str | os.PathLike[str] | int,
    *,
    name: str | None = None,
    changes: Sequence[str] = (),
    platform: Platform | None = None,
    message: str = "",
) -> Image:
    """Make an image of a directory, or of a tar in any compression by path or descriptor; for a worker thread.

    ``changes`` are a Dockerfile's instructions ("CMD [\\"sh\\"]"), ``platform`` is this host's unless given.
    A directory's other file systems, sockets and the store itself, if below it, are left out.
    Raises ``UsageError``, ``InvalidImage``, ``StateError``.
    """
    reference = Reference.parse(name) if name else None
    target = platform or _plain_host()
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    config = apply_changes(
        ImageConfig(architecture=target.architecture, os=target.os, variant=target.variant, created=now), changes
    )
    with store.pinned():
        layer = _bring_in(store, source)
        history = History(created=now, created_by="pyrt import", comment=message)
        content = encode_config(_with_layer(config, layer, history))
        return store.add_image(
            manifest=compose_manifest(content, [(layer, store.compression_of(layer))]),
            manifest_media_type=OCI_MANIFEST,
            config=content,
            layers=[(layer.digest, layer.diff_id, layer.blob_size)],
            names=[reference] if reference else [],
        )


def _with_layer(config: ImageConfig, layer: Layer, history: History) -> ImageConfig:
    return msgspec.structs.replace(config, diff_ids=(layer.diff_id,), history=(history,))


def _bring_in(store: Store, source: str | os.PathLike[str] | int) -> Layer:
    from pyrt._native import extract_layer

    with _tar_of(store, source) as (descriptor, check), store.ingest_layer(None, None) as ingestion:
        try:
            report = extract_layer(descriptor, ingestion.directory, blob=ingestion.blob, cancel=None)
        except InvalidImage:
            # If the directory could not be read to its end, that is why the tar is cut short.
            check()
            raise
        check()
        _refuse_image_archive(ingestion, source)
        diff_id = ingestion.commit(report)
    layer = store.layer(diff_id)
    if layer is None:
        raise InvalidImage(f"layer {diff_id} vanished from the store while it was imported", hint="try again")
    return layer


@contextmanager
def _tar_of(store: Store, source: str | os.PathLike[str] | int) -> Iterator[tuple[int, Callable[[], None]]]:
    """A descriptor of a tar, and a call that raises what went wrong with writing it; a descriptor given stays open."""
    with ExitStack() as stack:
        if isinstance(source, int):
            descriptor = source
        else:
            descriptor = _open(os.fspath(source))
            stack.callback(os.close, descriptor)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            writer = stack.enter_context(_TreeWriter(descriptor, store.root))
            yield writer.source, writer.check
        else:
            yield descriptor, _nothing_to_check


class _TreeWriter:
    """A thread that writes a directory as a tar into a pipe."""

    def __init__(self, folder: int, state_root: os.PathLike[str]) -> None:
        self._folder = folder
        self._failure: BaseException | None = None
        status = os.stat(state_root)
        self._leave_out = {(status.st_dev, status.st_ino)}
        self.source, self._target = os.pipe2(os.O_CLOEXEC)
        with suppress(OSError):
            fcntl.fcntl(self._target, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._thread = threading.Thread(target=self._write, name="pyrt-tree-writer", daemon=True)

    def __enter__(self) -> _TreeWriter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Nobody reads any more: the writer, if it still writes, gets EPIPE and ends.
        os.close(self.source)
        self._thread.join()

    def check(self) -> None:
        """Wait for the writer and raise what it failed with."""
        self._thread.join()
        if self._failure:
            with state_errors("read", "the directory"):
                raise self._failure

    def _write(self) -> None:
        try:
            write_tree(self._folder, self._target, leave_out=self._leave_out)
        except BaseException as error:
            self._failure = error
        finally:
            os.close(self._target)


def _nothing_to_check() -> None:
    pass


def _refuse_image_archive(ingestion: LayerIngestion, source: object) -> None:
    """An image archive, taken for a root file system, would be an image that holds an image."""
    names = set(os.listdir(ingestion.directory))
    if names & set(_IMAGE_FILES) and not names & {"bin", "usr", "etc"}:
        raise UsageError(f"{source} is an image archive, not a root file system", hint="bring it in with: pyrt load")


def _plain_host() -> Platform:
    """This host's platform without the level of its processor, which a root file system does not need."""
    host = platforms.host()
    return platforms.Platform(host.os, host.architecture, "" if host.architecture == "amd64" else host.variant)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
