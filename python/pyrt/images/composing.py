"""The manifest of an image that came without one, or whose own names blobs that this store holds in another form."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pyrt.images.manifest import OCI_CONFIG, OCI_MANIFEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrt.images.ingestion import Layer

_PLAIN: Final = "application/vnd.oci.image.layer.v1.tar"
# xz and bzip2 have no media type of their own; who reads "tar" looks at the bytes, as Docker and Podman do.
_SUFFIXES: Final = {"gzip": "+gzip", "zstd": "+zstd"}


def compose_manifest(config: bytes, layers: Sequence[tuple[Layer, str]]) -> bytes:
    """An OCI manifest; each layer, lowest first, comes with the kind of its compression. Same input, same bytes."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, f"sha256:{hashlib.sha256(config).hexdigest()}", len(config)),
        "layers": [
            descriptor(_PLAIN + _SUFFIXES.get(kind, ""), layer.digest, layer.blob_size) for layer, kind in layers
        ],
    }
    return msgspec.json.encode(document)


def descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    """A content descriptor (OCI image-spec 1.1, descriptor.md)."""
    return {"mediaType": media_type, "digest": digest, "size": size}
