"""The archive of ``docker save``: manifest.json names, for each image, its configuration, tags and layers.

Written and read here in the form that Docker, Podman and skopeo all understand (Docker image spec 1.2,
"Combined Image JSON + Filesystem Changeset Format"). What it lacks is a manifest and the layers' compressed form.
"""

from __future__ import annotations

import hashlib
import posixpath
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pyrt.errors import InvalidImage
from pyrt.images.archive_files import read_small
from pyrt.images.composing import compose_manifest
from pyrt.images.compression import plain
from pyrt.images.config import LARGEST_CONFIG, parse_config
from pyrt.images.image import hex_of
from pyrt.images.manifest import OCI_MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyrt.images.blobs import VerifiedReader
    from pyrt.images.compression import Readable
    from pyrt.images.image import Image
    from pyrt.images.ingestion import Layer
    from pyrt.images.loading import Archive
    from pyrt.images.reference import Reference
    from pyrt.images.saving import Selected, Writer
    from pyrt.images.store import Store

MANIFEST: Final = "manifest.json"


class Entry(msgspec.Struct, frozen=True, rename="pascal"):
    """One image in manifest.json."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None


def entries(archive: Archive) -> list[Entry]:
    """What manifest.json lists."""
    found = archive.decode(MANIFEST, list[Entry])
    if not found:
        raise InvalidImage(f"{archive.name} holds no image: its {MANIFEST} is empty")
    return found


def load(archive: Archive) -> list[Image]:
    """All images of the archive, each under its tags."""
    return [_load(archive, entry) for entry in entries(archive)]


def tags(archive: Archive) -> dict[str, list[Reference]]:
    """Names by image id, for the layouts beside which Docker writes a manifest.json."""
    return {
        f"sha256:{posixpath.basename(entry.config).removesuffix('.json')}": [
            archive.parse_name(tag) for tag in entry.repo_tags or ()
        ]
        for entry in entries(archive)
    }


def save(store: Store, selected: Sequence[Selected], writer: Writer) -> None:
    """Write images: every layer once, plain, as those who check diff ids want it."""
    written: set[str] = set()
    listed: list[dict[str, Any]] = []
    for each in selected:
        layers = store.layers_of(each.image)
        for layer in layers:
            if layer.diff_id not in written:
                written.add(layer.diff_id)
                _save_layer(store, each.image, layer, writer)
        config = f"{hex_of(each.image.id)}.json"
        if config not in written:
            written.add(config)
            writer.add(config, store.raw_config(each.image))
        listed.append({"Config": config, "RepoTags": _tags(each.names), "Layers": [_layer_path(one) for one in layers]})
    writer.add(MANIFEST, msgspec.json.encode(_merged(listed)))


def _save_layer(store: Store, image: Image, layer: Layer, writer: Writer) -> None:
    with store.read_layer(layer, image) as blob:
        try:
            writer.add_stream(_layer_path(layer), _PlainLayer(blob, layer), layer.size)
        except InvalidImage:
            # Read to its end, a damaged blob is put aside and can be fetched anew.
            while blob.read():
                pass
            raise


class _PlainLayer:
    """A layer's plain bytes, whose end is an error if they were not those of its diff id."""

    def __init__(self, blob: VerifiedReader, layer: Layer) -> None:
        self._called = f"layer {layer.digest}"
        self._diff_id = layer.diff_id
        self._hash = hashlib.sha256()
        self._stream: Readable = plain(blob, self._called)

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        if not data and self._hash.hexdigest() != hex_of(self._diff_id):
            raise InvalidImage(f"{self._called} does not have the plain bytes of {self._diff_id}")
        return data


def _load(archive: Archive, entry: Entry) -> Image:
    config = read_small(archive.files, posixpath.normpath(entry.config), limit=LARGEST_CONFIG)
    diff_ids, paths = parse_config(config).diff_ids, entry.layers or []
    if len(paths) != len(diff_ids):
        raise InvalidImage(
            f"an image in {archive.name} has {len(paths)} layers, and {len(diff_ids)} in its configuration"
        )
    names = [archive.parse_name(tag) for tag in entry.repo_tags or ()]
    store = archive.store
    with store.pinned():
        layers = [
            archive.ingest(diff_id, None, posixpath.normpath(path))
            for path, diff_id in zip(paths, diff_ids, strict=True)
        ]
        return store.add_image(
            manifest=compose_manifest(config, [(layer, store.compression_of(layer)) for layer in layers]),
            manifest_media_type=OCI_MANIFEST,
            config=config,
            layers=[(layer.digest, layer.diff_id, layer.blob_size) for layer in layers],
            names=names,
        )


def _layer_path(layer: Layer) -> str:
    return f"{hex_of(layer.diff_id)}.tar"


def _tags(names: Iterable[Reference]) -> list[str]:
    # Whole: Docker shortens them itself, and Podman takes "box:1" for localhost/box:1.
    return [str(name) for name in names]


def _merged(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry an image, however many of its names were asked for."""
    merged: dict[str, dict[str, Any]] = {}
    for entry in listed:
        known = merged.setdefault(entry["Config"], {**entry, "RepoTags": []})
        known["RepoTags"] += [tag for tag in entry["RepoTags"] if tag not in known["RepoTags"]]
    return list(merged.values())
