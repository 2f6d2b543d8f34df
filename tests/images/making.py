"""Layers, images and archives for the tests, made by hand where a tool would not make them so."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pyrt.images.composing import compose_manifest
from pyrt.images.manifest import OCI_MANIFEST
from pyrt.images.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyrt.images.image import Image
    from pyrt.images.store import Store


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(files: dict[str, bytes | tuple[str, str]]) -> bytes:
    """A tar of these files; a value ("symlink", target) or ("link", target) is a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                member.type = tarfile.SYMTYPE if content[0] == "symlink" else tarfile.LNKTYPE
                member.linkname = content[1]
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def config_of(*layers: bytes, **run: Any) -> bytes:
    """The configuration of an image of these plain layers."""
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-02-03T04:05:06.123456789Z",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
    ).encode()


@contextmanager
def piped(data: bytes) -> Iterator[int]:
    """A descriptor from which these bytes can be read, as from a file that nobody can find."""
    descriptor = os.memfd_create("test")
    try:
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def ingest(store: Store, plain: bytes, *, compress: bool = True) -> tuple[str, str, int]:
    """Bring a layer into the store; (digest, diff id, size)."""
    from pyrt._native import extract_layer

    data = gzip.compress(plain, mtime=0) if compress else plain
    with store.ingest_layer(digest_of(plain), digest_of(data)) as layer, piped(data) as source:
        if not layer.exists:
            layer.commit(extract_layer(source, layer.directory, blob=layer.blob, cancel=None))
    return digest_of(data), digest_of(plain), len(data)


def add(store: Store, *plain: bytes, name: str | None = None, repo_digest: str | None = None, **run: Any) -> Image:
    """Add an image of these plain layers."""
    with store.pinned():
        layers = [ingest(store, layer) for layer in plain]
        config = config_of(*plain, **run)
        known = [(found, "gzip") for _, diff_id, _ in layers if (found := store.layer(diff_id))]
        return store.add_image(
            manifest=compose_manifest(config, known),
            manifest_media_type=OCI_MANIFEST,
            config=config,
            layers=layers,
            names=[Reference.parse(name)] if name else [],
            repo_digest=repo_digest,
        )


def docker_archive(images: list[tuple[list[str], bytes, list[bytes]]], *, compress_layers: bool = False) -> bytes:
    """What ``docker save`` wrote up to version 24: tags, configuration and plain layers of each image."""
    files: dict[str, bytes | tuple[str, str]] = {}
    manifest = []
    for tags, config, layers in images:
        paths = []
        for layer in layers:
            folder = hashlib.sha256(b"v1" + layer).hexdigest()
            files[f"{folder}/VERSION"] = b"1.0"
            files[f"{folder}/json"] = b"{}"
            files[f"{folder}/layer.tar"] = gzip.compress(layer, mtime=0) if compress_layers else layer
            paths.append(f"{folder}/layer.tar")
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        files[name] = config
        manifest.append({"Config": name, "RepoTags": tags, "Layers": paths})
    files["repositories"] = b"{}"
    files["manifest.json"] = json.dumps(manifest).encode()
    return tar_of(files)


def assert_sound(store: Store) -> None:
    """Every image is whole: names lead to it, layers are there, every byte of every blob has its digest."""
    for image in store.list():
        assert store.find(image.id) == image
        for name in image.names:
            assert store.find(name).id == image.id
        store.raw_config(image)
        store.raw_manifest(image)
        for layer in store.layers_of(image):
            with store.read_layer(layer, image) as blob:
                while blob.read():
                    pass
        for path in image.layers:
            assert os.path.isdir(path)


def debris(root: Path) -> list[str]:
    """What is in ingest/, and files in layers/ and blobs/ that no row names."""
    import sqlite3

    found = [f"ingest/{name}" for name in os.listdir(root / "ingest")]
    database = sqlite3.connect(root / "store.db")
    layers = database.execute("SELECT diff_id, digest FROM layers").fetchall()
    images = database.execute("SELECT id, manifest FROM images").fetchall()
    database.close()
    known = {value.removeprefix("sha256:") for row in [*layers, *images] for value in row}
    for folder in ("layers", "blobs"):
        found += [f"{folder}/{name}" for name in os.listdir(root / folder / "sha256") if name not in known]
    return found
