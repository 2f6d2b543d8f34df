"""Deleting, away from everybody's path: layers that no image has, files that no row names, and debris.

Rows go first, in a transaction; then the files are renamed into a scratch folder, which takes no time and
needs that nobody has a pin; then they are removed, which may take long and is in nobody's way.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

import msgspec

from pyrt.images.blobs import DAMAGED
from pyrt.images.durable import state_errors
from pyrt.images.image import hex_of
from pyrt.images.ingestion import LAYER
from pyrt.images.scratch import Scratch

if TYPE_CHECKING:
    from pyrt.images.layout import Layout
    from pyrt.images.schema import Database

# How long the layers of an image that never arrived, and halves of downloads, wait for another attempt.
GRACE: Final = 24 * 3600.0


class Swept(msgspec.Struct, frozen=True):
    """Diff ids of the layers that are gone, and bytes of layers and blobs."""

    layers: tuple[str, ...] = ()
    reclaimed: int = 0


def sweep(layout: Layout, database: Database, *, grace: float = GRACE) -> Swept:
    """Delete what nobody needs. While anybody reads or adds images, only what was abandoned in ingest/ is."""
    with state_errors("clean up", layout.root):
        with layout.alone() as alone:
            swept = _collect(layout, database, time.time() - grace) if alone else Swept()
        _remove_abandoned(layout, time.time() - grace)
    return swept


class _Wanted(msgspec.Struct):
    layers: set[str]
    blobs: set[str]


def _collect(layout: Layout, database: Database, before: float) -> Swept:
    gone, wanted = _forget_layers(database, before)
    reclaimed = sum(size for _, size in gone)
    orphans = [
        (layout.layers, name) for name in os.listdir(layout.root / "layers" / "sha256") if name not in wanted.layers
    ]
    for name in os.listdir(layout.root / "blobs" / "sha256"):
        status = os.stat(name, dir_fd=layout.blobs, follow_symlinks=False)
        if name not in wanted.blobs and not (name.endswith(DAMAGED) and status.st_ctime > before):
            orphans.append((layout.blobs, name))
            reclaimed += status.st_size
    _throw_away(layout, orphans)
    return Swept(tuple(diff_id for diff_id, _ in gone), reclaimed)


def _forget_layers(database: Database, before: float) -> tuple[list[tuple[str, int]], _Wanted]:
    """Delete the rows of layers without an image; return those, and the names of all files that are to stay."""
    with database.write() as connection:
        gone = connection.execute(
            """DELETE FROM layers
               WHERE (used OR added < ?) AND NOT EXISTS (SELECT 1 FROM image_layers l WHERE l.diff_id = layers.diff_id)
               RETURNING diff_id, size""",
            (before,),
        ).fetchall()
        layers = connection.execute("SELECT diff_id, digest FROM layers").fetchall()
        images = connection.execute("SELECT id, manifest FROM images").fetchall()
    blobs = {hex_of(digest) for _, digest in layers} | {hex_of(digest) for image in images for digest in image}
    return gone, _Wanted({hex_of(diff_id) for diff_id, _ in layers}, blobs)


def _throw_away(layout: Layout, orphans: list[tuple[int, str]]) -> None:
    """Rename into a folder that the removal of abandoned ones, later and without the lock, takes care of."""
    if not orphans:
        return
    trash = Scratch.fresh(layout.ingest, "trash")
    try:
        for number, (folder, name) in enumerate(orphans):
            os.rename(name, str(number), src_dir_fd=folder, dst_dir_fd=trash.descriptor)
    finally:
        trash.keep()


def _remove_abandoned(layout: Layout, before: float) -> None:
    for name in os.listdir(layout.root / "ingest"):
        scratch = Scratch.abandoned(layout.ingest, name)
        if scratch is None:
            continue
        if name.startswith(f"{LAYER}-") and _is_recent(scratch, before):
            scratch.discard_inside("root")
            scratch.keep()
        else:
            scratch.discard()


def _is_recent(scratch: Scratch, before: float) -> bool:
    """Whether it holds the beginning of a download that somebody may want to go on with."""
    parts = [name for name in os.listdir(scratch.descriptor) if name.startswith("blob-")]
    times = (os.stat(name, dir_fd=scratch.descriptor, follow_symlinks=False).st_mtime for name in parts)
    return any(time > before for time in times)
