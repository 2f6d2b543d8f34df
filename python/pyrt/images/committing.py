"""``commit``: an image of another one and of what a container has changed, which becomes a layer on top."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from pyrt import _native
from pyrt.images.changes import apply_changes
from pyrt.images.composing import compose_manifest
from pyrt.images.config import History, ImageConfig, encode_config
from pyrt.images.manifest import OCI_MANIFEST
from pyrt.images.piping import PipeWriter, ingest_tar
from pyrt.images.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrt.images.image import Image
    from pyrt.images.ingestion import Layer
    from pyrt.images.store import Store

# Every registry and every tool reads it; level 4 is twice as quick as the usual 6 and 4 % larger.
_GZIP_LEVEL = 4


def commit_image(
    store: Store,
    base: Image,
    upper: int,
    config: ImageConfig,
    *,
    name: str | None = None,
    changes: Sequence[str] = (),
    author: str = "",
    message: str = "",
    command: str = "",
) -> Image:
    """The image of ``base`` and the changes in the open directory ``upper``, with ``config`` and its ``changes``.

    ``command`` is what the container ran, for the history. Raises UsageError, InvalidImage, StateError.
    """
    reference = Reference.parse(name) if name else None
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    with store.pinned():
        config = apply_changes(config, changes)
        layers = [*store.layers_of(base), _layer_of(store, upper)]
        history = History(created=now, created_by=command, author=author, comment=message)
        config = msgspec.structs.replace(
            config,
            created=now,
            author=author or config.author,
            history=(*config.history, history),
            diff_ids=tuple(layer.diff_id for layer in layers),
        )
        content = encode_config(config)
        return store.add_image(
            manifest=compose_manifest(content, [(layer, store.compression_of(layer)) for layer in layers]),
            manifest_media_type=OCI_MANIFEST,
            config=content,
            layers=[(layer.digest, layer.diff_id, layer.blob_size) for layer in layers],
            names=[reference] if reference else [],
        )


def _layer_of(store: Store, upper: int) -> Layer:
    with PipeWriter(partial(_native.write_layer, upper, gzip=_GZIP_LEVEL)) as writer:
        return ingest_tar(store, writer.source, writer.check)
