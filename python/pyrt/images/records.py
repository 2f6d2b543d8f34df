"""Rows of images: how one is put together from the tables, and put in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pyrt.errors import InvalidImage, StateError
from pyrt.images.image import ImageUsage, hex_of
from pyrt.images.ingestion import COLUMNS, Layer
from pyrt.images.reference import Reference

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence


class Record(msgspec.Struct, frozen=True):
    """What the database knows of one image; layers lowest first."""

    id: str
    manifest: str
    names: tuple[str, ...]
    repo_digests: tuple[str, ...]
    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, database: sqlite3.Connection, image: str) -> Record:
        (manifest,) = database.execute("SELECT manifest FROM images WHERE id = ?", (image,)).fetchone()
        names = database.execute("SELECT name FROM names WHERE image = ? ORDER BY name", (image,)).fetchall()
        digests = database.execute("SELECT name FROM repo_digests WHERE image = ? ORDER BY name", (image,)).fetchall()
        layers = database.execute(
            f"SELECT {COLUMNS} FROM image_layers JOIN layers USING (diff_id) WHERE image = ? ORDER BY position",
            (image,),
        ).fetchall()
        return cls(
            image,
            manifest,
            tuple(name for (name,) in names),
            tuple(digest for (digest,) in digests),
            tuple(Layer.of(layer) for layer in layers),
        )

    @classmethod
    def all(cls, database: sqlite3.Connection) -> list[Record]:
        return [cls.of(database, image) for (image,) in database.execute("SELECT id FROM images").fetchall()]

    def stack(self) -> list[str]:
        """Diff ids of the layers that are to be stacked, topmost first.

        A layer that comes twice hides its lower self wholly, and overlayfs refuses a directory twice (ELOOP).
        It does not look at an opaque mark of a root: what that hides is left away here.
        """
        stacked: dict[str, None] = {}
        for layer in reversed(self.layers):
            stacked[layer.diff_id] = None
            if layer.opaque:
                break
        return list(stacked)

    @property
    def called(self) -> str:
        return called(self.names, self.id)

    def usage(self, owners: dict[str, int], *, in_use: bool) -> ImageUsage:
        """``owners``: how many images have each layer."""
        layers = {layer.diff_id: layer.size for layer in self.layers}
        shared = sum(size for diff_id, size in layers.items() if owners[diff_id] > 1)
        return ImageUsage(self.id, self.names, shared, sum(layers.values()) - shared, in_use)


def require_layers(database: sqlite3.Connection, layers: Sequence[tuple[str, str, int]]) -> None:
    """All of these ((digest, diff id, size)) must be here, and of this size if they are held in this form."""
    for digest, diff_id, size in layers:
        row = database.execute("SELECT digest, blob_size FROM layers WHERE diff_id = ?", (diff_id,)).fetchone()
        if row is None:
            raise StateError(f"layer {diff_id} was removed while its image was added", hint="try again")
        if row[0] == digest and row[1] != size:
            raise InvalidImage(f"layer {digest} has {row[1]} bytes, and not {size} as its manifest says")


def insert_image(
    database: sqlite3.Connection, image: str, manifest: str, media_type: str, layers: Sequence[tuple[str, str, int]]
) -> None:
    """Insert the rows, or let a manifest take the place of the old one if we hold just the blobs that it names."""
    known = database.execute("SELECT 1 FROM images WHERE id = ?", (image,)).fetchone()
    if not known:
        database.execute(
            "INSERT INTO images (id, manifest, media_type) VALUES (?, ?, ?)", (image, manifest, media_type)
        )
        database.executemany(
            "INSERT INTO image_layers (image, position, diff_id) VALUES (?, ?, ?)",
            [(image, position, diff_id) for position, (_, diff_id, _) in enumerate(layers)],
        )
        database.executemany("UPDATE layers SET used = 1 WHERE diff_id = ?", [(diff_id,) for _, diff_id, _ in layers])
    elif all(
        database.execute("SELECT 1 FROM layers WHERE diff_id = ? AND digest = ?", (diff_id, digest)).fetchone()
        for digest, diff_id, _ in layers
    ):
        database.execute("UPDATE images SET manifest = ?, media_type = ? WHERE id = ?", (manifest, media_type, image))


def called(names: Sequence[str], image: str) -> str:
    """What to call an image in a message."""
    return Reference.parse(names[0]).familiar() if names else hex_of(image)[:12]


def layer_gone(image: str, diff_id: str) -> InvalidImage:
    return InvalidImage(f"layer {diff_id} of image {image} is gone from the store", hint="pull or load the image again")
