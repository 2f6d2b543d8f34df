"""``import``: an image with one layer from a root file system, a directory or a tar.

With this, an image needs nothing but Debian: a folder that holds busybox-static, or an mmdebstrap tree.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from pyrt.errors import UsageError
from pyrt.images import platform as platforms
from pyrt.images.changes import apply_changes
from pyrt.images.composing import compose_manifest
from pyrt.images.config import History, ImageConfig, encode_config
from pyrt.images.manifest import OCI_MANIFEST
from pyrt.images.piping import PipeWriter, ingest_tar
from pyrt.images.reference import Reference
from pyrt.images.tree import write_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyrt.images.image import Image
    from pyrt.images.ingestion import Layer, LayerIngestion
    from pyrt.images.platform import Platform
    from pyrt.images.store import Store

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
    with _tar_of(store, source) as (descriptor, check):
        return ingest_tar(store, descriptor, check, lambda ingestion: _refuse_image_archive(ingestion, source))


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
            write = partial(write_tree, descriptor, leave_out=_leave_out(store.root))
            writer = stack.enter_context(PipeWriter(write))
            yield writer.source, writer.check
        else:
            yield descriptor, _nothing_to_check


def _leave_out(state_root: os.PathLike[str]) -> set[tuple[int, int]]:
    status = os.stat(state_root)
    return {(status.st_dev, status.st_ino)}


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
