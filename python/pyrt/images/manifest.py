"""Manifests and indexes, OCI's and Docker's: what a registry says an image is made of.

All of it is input from an enemy. What comes out of ``parse`` has digests that may become paths, sizes that
are sizes, and is either a manifest or an index, never both (CVE-2021-41190).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from pyrt.errors import InvalidImage
from pyrt.images.platform import Platform
from pyrt.images.reference import is_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST_MANIFEST: Final = 4 << 20

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"

INDEXES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
# Registries convert to whatever is asked for first; so what needs no conversion is named, and schema 1 never.
ACCEPTED: Final = (OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST)

_CONFIGS: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})
_SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1+"
_OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
# The extraction looks at the bytes, not at the suffix, so a wrong one does no harm.
_LAYERS: Final = frozenset(
    {f"{_OCI_LAYER}{suffix}" for suffix in ("", "+gzip", "+zstd")}
    | {f"{_DOCKER_LAYER}{suffix}" for suffix in ("", ".gzip", ".zstd")}
)
_FOREIGN: Final = ("application/vnd.oci.image.layer.nondistributable.", "application/vnd.docker.image.rootfs.foreign.")
_LARGEST_SIZE: Final = (1 << 63) - 1


class _Platform(msgspec.Struct, frozen=True):
    os: str = ""
    architecture: str = ""
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    os_features: tuple[str, ...] | None = msgspec.field(default=None, name="os.features")


class _Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str = ""
    digest: str = ""
    size: int = -1
    urls: tuple[str, ...] | None = None
    platform: _Platform | None = None
    artifact_type: str | None = None


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    """Any of the four kinds, and what tells them apart."""

    schema_version: int = 0
    media_type: str | None = None
    artifact_type: str | None = None
    config: _Descriptor | None = None
    layers: tuple[_Descriptor, ...] | None = None
    manifests: tuple[_Descriptor, ...] | None = None
    fs_layers: object = None


class Blob(msgspec.Struct, frozen=True):
    """Something to fetch: ``digest`` is valid and ``size`` in bytes is not negative."""

    media_type: str
    digest: str
    size: int


class Manifest(msgspec.Struct, frozen=True):
    """One image for one platform; ``layers`` lowest first."""

    media_type: str
    config: Blob
    layers: tuple[Blob, ...]


class Entry(msgspec.Struct, frozen=True):
    """One image, or a further index, in an index; ``platform`` is None where it is not said."""

    blob: Blob
    platform: Platform | None


class Index(msgspec.Struct, frozen=True):
    """Images of one name for several platforms, in the order in which their maker prefers them."""

    media_type: str
    entries: tuple[Entry, ...]


def parse(content: bytes, media_type: str, name: str) -> Manifest | Index:
    """Read a document that came under ``media_type`` ("" or anything: unknown). ``InvalidImage`` says what is wrong.

    ``name`` is for messages. A media type of the wrong family (Docker's for OCI's) is tolerated, one of the
    wrong kind (a manifest's for an index) is not.
    """
    media_type = media_type.partition(";")[0].strip().lower()
    document = _decode(content, name)
    _refuse_schema_1(document, media_type, name)
    _refuse_two_kinds(document, media_type, name)
    if document.manifests is not None:
        return Index(document.media_type or OCI_INDEX, tuple(_entries(document.manifests, name)))
    if document.config is None:
        raise InvalidImage(f"{name} is not a container image: its manifest lists neither a configuration nor images")
    return _manifest(document, document.config, name)


def pair_layers(manifest: Manifest, diff_ids: Sequence[str], name: str) -> tuple[tuple[Blob, str], ...]:
    """Each layer with the digest of its plain bytes, which the configuration tells; lowest first."""
    if len(manifest.layers) != len(diff_ids):
        raise InvalidImage(
            f"{name} has {len(manifest.layers)} layers in its manifest and {len(diff_ids)} in its configuration"
        )
    return tuple(zip(manifest.layers, diff_ids, strict=True))


def _decode(content: bytes, name: str) -> _Document:
    try:
        return msgspec.json.decode(content, type=_Document)
    except msgspec.ValidationError as error:
        raise InvalidImage(f"the manifest of {name} is malformed: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidImage(f"the manifest of {name} is not JSON") from error


def _refuse_schema_1(document: _Document, media_type: str, name: str) -> None:
    types = (document.media_type or "", media_type)
    if document.schema_version == 1 or any(kind.startswith(_SCHEMA_1) for kind in types):
        raise InvalidImage(
            f"{name} has a manifest of Docker's schema 1, given up in 2017",
            hint="push it again with a current tool: skopeo copy turns it into schema 2",
        )


def _refuse_two_kinds(document: _Document, media_type: str, name: str) -> None:
    """A document that one reader takes for a manifest and another for an index hides an image from one of them."""
    is_index = document.manifests is not None
    is_manifest = document.config is not None or document.layers is not None
    if document.fs_layers is not None or (is_index and is_manifest):
        raise InvalidImage(f"{name} has a manifest that is of two kinds at once (CVE-2021-41190)")
    for kind in (document.media_type, media_type):
        if (kind in INDEXES and is_manifest) or (kind in MANIFESTS and is_index):
            raise InvalidImage(f"{name} has a manifest that is not what its media type {kind} says (CVE-2021-41190)")


def _manifest(document: _Document, config: _Descriptor, name: str) -> Manifest:
    if config.media_type not in _CONFIGS:
        kind = document.artifact_type or config.media_type or "unknown type"
        raise InvalidImage(f"{name} is not a container image but an artifact ({kind[:100]})")
    layers = tuple(_layer(layer, place, name) for place, layer in enumerate(document.layers or (), start=1))
    media_type = document.media_type or (OCI_MANIFEST if config.media_type == OCI_CONFIG else DOCKER_MANIFEST)
    return Manifest(media_type, _blob(config, "configuration", name), layers)


def _layer(layer: _Descriptor, place: int, name: str) -> Blob:
    if layer.media_type.startswith(_FOREIGN) or layer.urls:
        raise InvalidImage(
            f"layer {place} of {name} is foreign: it is to be fetched from somewhere else than its registry",
            hint="such are the base layers of Windows images",
        )
    if layer.media_type not in _LAYERS:
        raise InvalidImage(f"layer {place} of {name} is not a container layer but {layer.media_type[:100]!r}")
    return _blob(layer, f"layer {place}", name)


def _entries(descriptors: tuple[_Descriptor, ...], name: str) -> list[Entry]:
    """What may be an image; signatures, attestations and things of unknown types are passed over."""
    return [
        Entry(_blob(each, f"entry {place}", name), _platform(each.platform))
        for place, each in enumerate(descriptors, start=1)
        if each.media_type in INDEXES | MANIFESTS and not each.artifact_type
    ]


def _blob(descriptor: _Descriptor, what: str, name: str) -> Blob:
    if not is_digest(descriptor.digest):
        kind = descriptor.digest.partition(":")[0]
        hint = "pyrt knows sha256 digests" if kind in ("sha384", "sha512") else None
        raise InvalidImage(f"the {what} of {name} has the invalid digest {descriptor.digest[:100]!r}", hint=hint)
    if not 0 <= descriptor.size <= _LARGEST_SIZE:
        raise InvalidImage(f"the {what} of {name} has no valid size")
    return Blob(descriptor.media_type, descriptor.digest, descriptor.size)


def _platform(platform: _Platform | None) -> Platform | None:
    if platform is None or not platform.os or not platform.architecture:
        return None
    return Platform.of(
        platform.os,
        platform.architecture,
        platform.variant or "",
        platform.os_version or "",
        platform.os_features or (),
    )
