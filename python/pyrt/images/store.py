"""The images of this machine: found by name, added whole, removed whole.

This is the room's front door; how files become durable, layers get in and debris gets out is behind it, in
``layout``, ``blobs``, ``ingestion``, ``removal`` and ``sweeping``. All calls block and may be made from any
thread and by any number of processes at once; only ``find`` is quick enough for Trio's own thread.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pyrt.errors import InvalidImage
from pyrt.images.blobs import Blobs, VerifiedReader
from pyrt.images.compression import kind_of
from pyrt.images.config import LARGEST_CONFIG, ImageConfig, parse_config, parse_time
from pyrt.images.durable import exists
from pyrt.images.image import Image, Removed, Usage, hex_of
from pyrt.images.ingestion import Layer, LayerIngestion, find_layer
from pyrt.images.layout import Layout
from pyrt.images.manifest import LARGEST_MANIFEST
from pyrt.images.naming import give_name, give_repo_digest, resolve
from pyrt.images.platform import Platform
from pyrt.images.records import Record, called, insert_image, layer_gone, require_layers
from pyrt.images.reference import Reference
from pyrt.images.removal import Detached, remove_one, remove_unneeded
from pyrt.images.schema import Database
from pyrt.images.scratch import Scratch
from pyrt.images.sweeping import GRACE, Swept, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from contextlib import AbstractContextManager

# A server that is asked for ever new names must not remember them all.
_MOST_REMEMBERED: Final = 4096


class Store:
    """Open with ``Store.open``; a context manager that closes itself."""

    def __init__(self, layout: Layout, database: Database) -> None:
        self.root = layout.root
        self._layout = layout
        self._database = database
        self._blobs = Blobs(layout)
        self._found: dict[str, tuple[int, Image]] = {}
        self._configs: dict[str, ImageConfig] = {}

    @classmethod
    def open(cls, root: Path | str) -> Self:
        """Open the store below this state root, and create it if need be. ``StateError`` says why it can't be."""
        layout = Layout(Path(root))
        try:
            return cls(layout, Database(layout.root / "store.db"))
        except BaseException:
            layout.close()
            raise

    def close(self) -> None:
        self._database.close()
        self._layout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- finding ----------------------------------------------------------------------------------------------------

    def find(self, name_or_id: str) -> Image:
        """The image of this name, repo digest, id or beginning of an id (4 digits at least).

        Raises ``ImageNotFound``; ``UsageError`` for a malformed name or an ambiguous id; ``InvalidImage`` for an
        image of which a part is damaged or gone. 2 us if nothing has changed since the last time, else 100.
        """
        version = self._database.version()
        remembered = self._found.get(name_or_id)
        if remembered and remembered[0] == version:
            return remembered[1]
        image = self._look_up(name_or_id)
        if len(self._found) >= _MOST_REMEMBERED:
            self._found.clear()
        # The version is from before the look-up: what has changed since then makes this entry out of date.
        self._found[name_or_id] = (version, image)
        return image

    def list(self) -> list[Image]:
        """All images, the youngest first. One with a damaged configuration is listed with an empty one."""
        with self._database.read() as database:
            rows = Record.all(database)
        images = [self._tolerant_image(row) for row in rows]
        return sorted(images, key=lambda image: image.created.timestamp() if image.created else 0.0, reverse=True)

    def usage(self, in_use: Collection[str] = ()) -> Usage:
        """What the images take, as their layers' sizes tell; ``in_use``: ids of the images that containers use."""
        with self._database.read() as database:
            rows = Record.all(database)
            layers, blobs = database.execute("SELECT total(size), total(blob_size) FROM layers").fetchone()
        owners: dict[str, int] = {}
        for row in rows:
            for layer in row.layers:
                owners[layer.diff_id] = owners.get(layer.diff_id, 0) + 1
        needed = {layer.diff_id: layer for row in rows if row.id in in_use for layer in row.layers}
        reclaimable = layers + blobs - sum(layer.size + layer.blob_size for layer in needed.values())
        images = tuple(row.usage(owners, in_use=row.id in in_use) for row in rows)
        return Usage(images, int(layers), int(blobs), int(reclaimable))

    # ---- names and removal ------------------------------------------------------------------------------------------

    def tag(self, source: str, target: str) -> None:
        """Give an image another name; an image that had it before loses it."""
        reference = Reference.parse(target)
        with self._database.write() as database:
            give_name(database, reference, resolve(database, source).image)

    def remove(self, name_or_id: str, *, force: bool = False, in_use: Collection[str] = ()) -> Removed:
        """Take away a name, and with its last the image; see ``removal``. ``in_use``: ids that containers use."""
        with self._database.write() as database:
            detached = remove_one(database, name_or_id, force=force, in_use=in_use)
        return self._swept(detached, GRACE) if detached.deleted else Removed(tuple(detached.untagged))

    def prune(self, *, all: bool = False, in_use: Collection[str] = ()) -> Removed:
        """Remove images without a name, or all that no container uses, and everything that is left over from cuts."""
        with self._database.write() as database:
            detached = remove_unneeded(database, everything=all, in_use=in_use)
        return self._swept(detached, 0.0)

    def sweep(self, *, grace: float = GRACE) -> Swept:
        """Delete debris: of crashes, and what could not be deleted while somebody read. For an engine's idle time.

        Layers and halves of downloads whose image never arrived are kept for ``grace`` seconds.
        """
        return sweep(self._layout, self._database, grace=grace)

    # ---- adding -----------------------------------------------------------------------------------------------------

    def pinned(self) -> AbstractContextManager[None]:
        """While open, nobody deletes a layer or blob. Hold it from the first ``has_layer`` until ``add_image``."""
        return self._layout.pinned()

    def has_layer(self, diff_id: str) -> bool:
        """Whether this layer is here, extracted, with its blob."""
        return self.layer(diff_id) is not None

    def layer(self, diff_id: str) -> Layer | None:
        """Digest and sizes of a layer that is here."""
        return find_layer(self._layout, self._database, diff_id, None)

    def ingest_layer(
        self, diff_id: str | None, digest: str | None, *, cancelled: Callable[[], bool] | None = None
    ) -> LayerIngestion:
        """A context manager for one layer on its way in, alone in all processes; see ``LayerIngestion``.

        What is not known beforehand is None, and is not verified then. While another brings in the same layer it
        waits, and raises ``scratch.Cancelled`` soon after ``cancelled()`` is true.
        """
        return LayerIngestion(self._layout, self._database, diff_id, digest, cancelled)

    def scratch(self) -> Scratch:
        """A temporary folder on the store's file system, for what has to be put somewhere."""
        return Scratch.fresh(self._layout.ingest)

    def put_blob(self, data: bytes) -> str:
        """Keep a small blob and return its digest. It stays if an image that is added before the next sweep has it."""
        return self._blobs.put(data)

    def add_image(
        self,
        *,
        manifest: bytes,
        manifest_media_type: str,
        config: bytes,
        layers: Sequence[tuple[str, str, int]],
        names: Iterable[Reference] = (),
        repo_digest: str | None = None,
    ) -> Image:
        """Add an image whose ``layers`` ((digest, diff id, compressed size), lowest first) are all here.

        In one transaction: afterwards the image is whole and has its names, or nothing has changed. If it is here
        already, it only gets the names. ``repo_digest`` is "registry/repository@sha256:...".
        """
        diff_ids = tuple(diff_id for _, diff_id, _ in layers)
        parsed = parse_config(config)
        if parsed.diff_ids != diff_ids:
            raise InvalidImage("the image's manifest and configuration do not have the same layers")
        with self.pinned():
            digest, image = self._blobs.put(manifest), self._blobs.put(config)
            with self._database.write() as database:
                require_layers(database, layers)
                insert_image(database, image, digest, manifest_media_type, layers)
                for reference in names:
                    give_name(database, reference, image)
                if repo_digest:
                    give_repo_digest(database, repo_digest, image)
        self._configs[image] = parsed
        return self.find(image)

    # ---- reading ----------------------------------------------------------------------------------------------------

    def raw_config(self, image: Image) -> bytes:
        """The configuration's own bytes, verified."""
        what = f"the configuration of image {called(image.names, image.id)}"
        return self._blobs.read(image.id, limit=LARGEST_CONFIG, what=what)

    def raw_manifest(self, image: Image) -> tuple[bytes, str]:
        """The manifest's own bytes, verified, and its media type."""
        with self._database.read() as database:
            row = database.execute("SELECT media_type FROM images WHERE id = ?", (image.id,)).fetchone()
        what = f"the manifest of image {called(image.names, image.id)}"
        return self._blobs.read(image.digest, limit=LARGEST_MANIFEST, what=what), row[0] if row else ""

    def read_layer(self, layer: Layer, image: Image) -> VerifiedReader:
        """A layer's bytes as they came, verified at their end. Hold ``pinned`` meanwhile."""
        return self._blobs.reader(layer.digest, what=f"layer {layer.digest} of image {called(image.names, image.id)}")

    def compression_of(self, layer: Layer) -> str:
        """The kind of a layer's blob: "gzip", "zstd", "xz", "bzip2", or "" for a plain tar."""
        descriptor = self._blobs.open(layer.digest, what=f"layer {layer.digest}")
        try:
            return kind_of(os.read(descriptor, 6))
        finally:
            os.close(descriptor)

    def layers_of(self, image: Image) -> tuple[Layer, ...]:
        """All of them, lowest first, as often as the image has them; ``InvalidImage`` if one is gone."""
        found = [self.layer(diff_id) for diff_id in image.config.diff_ids]
        for layer, diff_id in zip(found, image.config.diff_ids, strict=True):
            if layer is None:
                raise layer_gone(called(image.names, image.id), diff_id)
        return tuple(layer for layer in found if layer)

    # ---- within -----------------------------------------------------------------------------------------------------

    def _look_up(self, text: str) -> Image:
        while True:
            row = self._record(text)
            try:
                return self._whole_image(row)
            except InvalidImage:
                # What was removed since then is not damaged: the second look says so.
                if self._record(text) == row:
                    raise

    def _record(self, text: str) -> Record:
        with self._database.read() as database:
            return Record.of(database, resolve(database, text).image)

    def _whole_image(self, row: Record) -> Image:
        for layer in row.layers:
            if not exists(hex_of(layer.diff_id), within=self._layout.layers):
                raise layer_gone(row.called, layer.diff_id)
        return self._image(row, self._config(row))

    def _config(self, row: Record) -> ImageConfig:
        config = self._configs.get(row.id)
        if config is None:
            what = f"the configuration of image {row.called}"
            config = parse_config(self._blobs.read(row.id, limit=LARGEST_CONFIG, what=what))
            if len(self._configs) >= _MOST_REMEMBERED:
                self._configs.clear()
            self._configs[row.id] = config
        return config

    def _tolerant_image(self, row: Record) -> Image:
        try:
            config = self._config(row)
        except InvalidImage:
            config = ImageConfig()
        return self._image(row, config)

    def _image(self, row: Record, config: ImageConfig) -> Image:
        return Image(
            id=row.id,
            digest=row.manifest,
            names=row.names,
            repo_digests=row.repo_digests,
            config=config,
            layers=tuple(self._layout.layer_path(diff_id) for diff_id in row.stack()),
            size=sum(layer.size for layer in row.layers),
            created=parse_time(config.created),
            platform=Platform.of(config.os, config.architecture, config.variant, config.os_version, config.os_features),
        )

    def _swept(self, detached: Detached, grace: float) -> Removed:
        swept = self.sweep(grace=grace)
        return Removed(tuple(detached.untagged), tuple(detached.deleted), swept.layers, swept.reclaimed)
