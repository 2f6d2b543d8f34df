"""OCI's image layout, as a folder or in a tar: index.json names manifests, blobs/sha256 holds everything.

OCI image-spec 1.1, image-layout.md. Where an index offers an image for several platforms, the one that fits
is taken, out of those whose manifests are there: tools save a part of a multi-platform image with its whole index.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pyrt.errors import InvalidImage, PlatformNotFound
from pyrt.images import docker_archive
from pyrt.images import platform as platforms
from pyrt.images.archive_files import read_small
from pyrt.images.composing import compose_manifest, descriptor
from pyrt.images.config import LARGEST_CONFIG, parse_config
from pyrt.images.image import hex_of
from pyrt.images.manifest import (
    LARGEST_MANIFEST,
    OCI_MANIFEST,
    Entry,
    Index,
    Manifest,
    pair_layers,
    parse,
)
from pyrt.images.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrt.images.image import Image
    from pyrt.images.loading import Archive
    from pyrt.images.platform import Platform
    from pyrt.images.saving import Selected, Writer
    from pyrt.images.store import Store

INDEX: Final = "index.json"
_VERSION_FILE: Final = "oci-layout"
_VERSION: Final = b'{"imageLayoutVersion":"1.0.0"}'
# containerd's annotation for the whole reference; OCI's own is a tag for some tools and a reference for others.
_FULL_NAME: Final = "io.containerd.image.name"
_REF_NAME: Final = "org.opencontainers.image.ref.name"
_DEEPEST_INDEX: Final = 4


class _Top(msgspec.Struct, frozen=True):
    manifests: list[dict[str, Any]] | None = None


class _Group(msgspec.Struct):
    """Manifests that one name (or none) stands for, and the names."""

    entries: list[Entry]
    names: list[Reference]


def load(archive: Archive, *, platform: Platform | None, local_name: str | None) -> list[Image]:
    """All images of the layout. ``local_name``: what images are called of which the layout knows only a tag."""
    groups = _groups(archive, local_name)
    tags: dict[str, list[Reference]] = {}
    if archive.files.has(docker_archive.MANIFEST):
        tags = docker_archive.tags(archive)
    elif local_name and len(groups) == 1 and not groups[0].names:
        groups[0].names.append(Reference.parse(local_name))
    return [_load(archive, group, platform, tags) for group in groups]


def save(store: Store, selected: Sequence[Selected], writer: Writer) -> None:
    """Write images with their own manifests where the store holds just the blobs that these name."""
    written: set[str] = set()
    listed: list[dict[str, Any]] = []

    def add(data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if digest not in written:
            written.add(digest)
            writer.add(_blob_path(digest), data)
        return digest

    for each in selected:
        for layer in store.layers_of(each.image):
            if layer.digest not in written:
                written.add(layer.digest)
                with store.read_layer(layer, each.image) as blob:
                    writer.add_stream(_blob_path(layer.digest), blob, layer.blob_size)
        config = store.raw_config(each.image)
        add(config)
        manifest, media_type = _manifest_to_save(store, each.image, config)
        entry = descriptor(media_type, add(manifest), len(manifest))
        listed += [{**entry, "annotations": names} for names in _annotations(each.names)] or [entry]
    writer.add(_VERSION_FILE, _VERSION)
    writer.add(INDEX, msgspec.json.encode({"schemaVersion": 2, "manifests": _once(listed)}))


def local_name_of(path: str | os.PathLike[str]) -> str | None:
    """What an image without a name of its own is called: after its folder or archive, below "localhost"."""
    base = os.path.basename(os.path.abspath(path)).lower()
    base = re.sub(r"\.(tar|oci|gz|tgz|zst|xz|bz2)$", "", re.sub(r"\.(gz|zst|xz|bz2)$", "", base))
    return f"localhost/{base}" if re.fullmatch(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", base) else None


def _load(archive: Archive, group: _Group, platform: Platform | None, tags: dict[str, list[Reference]]) -> Image:
    content, manifest = _choose(archive, group.entries, platform, _DEEPEST_INDEX)
    config = _blob(archive, manifest.config.digest, LARGEST_CONFIG)
    pairs = pair_layers(manifest, parse_config(config).diff_ids, archive.name)
    with archive.store.pinned():
        for blob, diff_id in pairs:
            archive.ingest(diff_id, blob.digest, _blob_path(blob.digest))
        return archive.store.add_image(
            manifest=content,
            manifest_media_type=manifest.media_type,
            config=config,
            layers=[(blob.digest, diff_id, blob.size) for blob, diff_id in pairs],
            names=[*group.names, *tags.get(manifest.config.digest, ())],
        )


def _groups(archive: Archive, local_name: str | None) -> list[_Group]:
    """The top index: descriptors of one name belong together, and so do unnamed ones that tell their platforms."""
    document = archive.decode(INDEX, _Top)
    offered = document.manifests or []
    # ``parse`` passes over signatures and attestations; asked for one at a time, it tells which are which.
    groups: dict[object, _Group] = {}
    for place, raw in enumerate(offered):
        content = msgspec.json.encode({"schemaVersion": 2, "manifests": [raw]})
        index = parse(content, "", archive.name)
        if not isinstance(index, Index) or not index.entries or not _may_run(index.entries[0]):
            continue
        name = _name(archive, raw.get("annotations"), local_name)
        unnamed = "platforms" if index.entries[0].platform else place
        group = groups.setdefault(str(name) if name else unnamed, _Group([], [name] if name else []))
        group.entries.append(index.entries[0])
    if not groups:
        raise InvalidImage(f"{archive.name} holds no image: its {INDEX} lists none")
    return _same_image_once(list(groups.values()))


def _same_image_once(groups: list[_Group]) -> list[_Group]:
    """An image that has several names is listed once a name."""
    merged: dict[tuple[str, ...], _Group] = {}
    for group in groups:
        key = tuple(entry.blob.digest for entry in group.entries)
        known = merged.setdefault(key, _Group(group.entries, []))
        known.names += group.names
    return list(merged.values())


def _may_run(entry: Entry) -> bool:
    """Attestations of buildkit are manifests like others, for the platform "unknown"."""
    return entry.platform is None or entry.platform.os != "unknown"


def _name(archive: Archive, annotations: object, local_name: str | None) -> Reference | None:
    if not isinstance(annotations, dict):
        return None
    full, short = annotations.get(_FULL_NAME), annotations.get(_REF_NAME)
    if isinstance(full, str) and full:
        return archive.parse_name(full)
    if not isinstance(short, str) or not short:
        return None
    if "/" in short or ":" in short:
        return archive.parse_name(short)
    return archive.parse_name(f"{local_name}:{short}") if local_name else None


def _choose(archive: Archive, entries: list[Entry], platform: Platform | None, depth: int) -> tuple[bytes, Manifest]:
    """Go down from the descriptors to one manifest."""
    if not depth:
        raise InvalidImage(f"{archive.name} has indexes in indexes, more than {_DEEPEST_INDEX} deep")
    entry = _fitting(archive, entries, platform)
    content = _blob(archive, entry.blob.digest, LARGEST_MANIFEST)
    found = parse(content, entry.blob.media_type, archive.name)
    if isinstance(found, Manifest):
        return content, found
    inner = [each for each in found.entries if _may_run(each)]
    present = [each for each in inner if archive.files.has(_blob_path(each.blob.digest))]
    return _choose(archive, present or inner, platform, depth - 1)


def _fitting(archive: Archive, entries: list[Entry], platform: Platform | None) -> Entry:
    if len(entries) == 1 and platform is None:
        return entries[0]
    wanted = platform or platforms.host()
    place = platforms.choose([entry.platform for entry in entries], wanted)
    if place is not None:
        return entries[place]
    available = tuple(dict.fromkeys(entry.platform.describe() for entry in entries if entry.platform))
    raise PlatformNotFound(
        f"no image for {wanted} in {archive.name}; it has: {', '.join(available) or 'none'}", available=available
    )


def _blob(archive: Archive, digest: str, limit: int) -> bytes:
    data = read_small(archive.files, _blob_path(digest), limit=limit)
    if hashlib.sha256(data).hexdigest() != hex_of(digest):
        raise InvalidImage(f"{archive.name} is damaged: its blob {digest} has other bytes")
    return data


def _manifest_to_save(store: Store, image: Image, config: bytes) -> tuple[bytes, str]:
    content, media_type = store.raw_manifest(image)
    manifest = parse(content, media_type, "the image")
    held = store.layers_of(image)
    if isinstance(manifest, Manifest) and [blob.digest for blob in manifest.layers] == [one.digest for one in held]:
        return content, media_type
    return compose_manifest(config, [(layer, store.compression_of(layer)) for layer in held]), OCI_MANIFEST


def _annotations(names: Sequence[Reference]) -> list[dict[str, str]]:
    return [{_FULL_NAME: str(name), _REF_NAME: str(name)} for name in names]


def _once(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for place, entry in enumerate(listed) if entry not in listed[:place]]


def _blob_path(digest: str) -> str:
    return f"blobs/sha256/{hex_of(digest)}"
