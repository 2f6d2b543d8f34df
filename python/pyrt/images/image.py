"""What the store tells of images: plain frozen values, shared by everybody above.

Nothing here touches a disk. Digests and ids are always of the form "sha256:<64 lowercase hex digits>".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from pyrt.images.reference import Reference

if TYPE_CHECKING:
    from datetime import datetime

    from pyrt.images.config import ImageConfig
    from pyrt.images.platform import Platform


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is whole in the store.

    ``id`` is the digest of its configuration, ``digest`` that of its manifest; ``names`` are canonical
    ("docker.io/library/debian:12"), ``repo_digests`` say where it was pulled from
    ("docker.io/library/debian@sha256:..."). ``layers`` are absolute directories in overlay's form, the topmost
    first, without repetitions and without those that an opaque root hides. ``size`` is the sum of its layers'
    plain bytes.
    """

    id: str
    digest: str
    names: tuple[str, ...]
    repo_digests: tuple[str, ...]
    config: ImageConfig
    layers: tuple[str, ...]
    size: int
    created: datetime | None
    platform: Platform


def familiar_name(image: Image) -> str:
    """How people call it: "debian:12", or its id if it has no name."""
    return Reference.parse(image.names[0]).familiar() if image.names else image.id


class Removed(msgspec.Struct, frozen=True):
    """What ``remove`` or ``prune`` did: names and repo digests taken away, ids of images, diff ids of layers.

    ``reclaimed`` counts the bytes of the deleted layers and blobs. Layers that somebody was reading just now are
    not among them: a later ``sweep`` deletes those.
    """

    untagged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    reclaimed: int = 0


class ImageUsage(msgspec.Struct, frozen=True):
    """Bytes of one image: ``shared`` in layers that other images have too, ``unique`` in its own."""

    id: str
    names: tuple[str, ...]
    shared: int
    unique: int
    in_use: bool

    @property
    def size(self) -> int:
        return self.shared + self.unique


class Usage(msgspec.Struct, frozen=True):
    """What the store takes: ``layers`` are extracted bytes (as tar counts them), ``blobs`` compressed ones.

    ``reclaimable`` is what ``prune(all=True)`` would free.
    """

    images: tuple[ImageUsage, ...]
    layers: int
    blobs: int
    reclaimable: int

    @property
    def size(self) -> int:
        return self.layers + self.blobs


class LayerReport(Protocol):
    """What an extraction found: digest of the bytes as they came, and of the plain tar; sizes in bytes.

    ``opaque_root``: the layer hides all below it, which overlayfs does not see at a layer's root.
    """

    @property
    def digest(self) -> str: ...
    @property
    def diff_id(self) -> str: ...
    @property
    def compressed_size(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def opaque_root(self) -> bool: ...


def hex_of(digest: str) -> str:
    """The part of a digest that names a file."""
    return digest.removeprefix("sha256:")
