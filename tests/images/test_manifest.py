"""Manifests and indexes: what is an image, what is refused, and with which words."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrt.errors import InvalidImage
from pyrt.images.manifest import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Index,
    Manifest,
    pair_layers,
    parse,
)
from tests.foreign import Layout, manifest_of

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def descriptor(media_type: str, number: int = 1, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(number), "size": number, **more}


def manifest(**changes: Any) -> dict[str, Any]:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG),
        "layers": [descriptor(OCI_LAYER, 2), descriptor(OCI_LAYER, 3)],
        **changes,
    }
    return {key: value for key, value in document.items() if value is not ...}


def index(*entries: dict[str, Any], **changes: Any) -> dict[str, Any]:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries), **changes}
    return {key: value for key, value in document.items() if value is not ...}


def read(document: Any, media_type: str = "") -> Manifest | Index:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse(content, media_type, "app:1")


def refused(document: Any, reason: str, media_type: str = "") -> InvalidImage:
    with pytest.raises(InvalidImage, match=reason) as caught:
        read(document, media_type)
    assert "app:1" in caught.value.message
    return caught.value


def test_an_oci_manifest() -> None:
    found = read(manifest(annotations={"a": "b"}, subject=descriptor("x")))
    assert isinstance(found, Manifest)
    assert (found.media_type, found.config.digest) == (OCI_MANIFEST, digest(1))
    assert [layer.digest for layer in found.layers] == [digest(2), digest(3)]


@pytest.mark.parametrize(
    "media_type", ["", DOCKER_MANIFEST, f"{DOCKER_MANIFEST}; charset=utf-8", "text/plain", OCI_MANIFEST]
)
def test_a_docker_manifest_whatever_the_server_calls_it(media_type: str) -> None:
    document = manifest(
        mediaType=DOCKER_MANIFEST, config=descriptor(DOCKER_CONFIG), layers=[descriptor(DOCKER_LAYER, 2)]
    )
    found = read(document, media_type)
    assert isinstance(found, Manifest)
    assert found.media_type == DOCKER_MANIFEST


@pytest.mark.parametrize(("config", "expected"), [(OCI_CONFIG, OCI_MANIFEST), (DOCKER_CONFIG, DOCKER_MANIFEST)])
def test_a_manifest_that_does_not_say_what_it_is(config: str, expected: str) -> None:
    found = read(manifest(mediaType=..., config=descriptor(config)))
    assert found.media_type == expected


@pytest.mark.parametrize("suffix", ["", "+gzip", "+zstd"])
def test_layers_of_all_compressions(suffix: str) -> None:
    assert read(manifest(layers=[descriptor(f"application/vnd.oci.image.layer.v1.tar{suffix}")]))


def test_families_may_be_mixed() -> None:
    assert read(manifest(config=descriptor(DOCKER_CONFIG), layers=[descriptor(DOCKER_LAYER), descriptor(OCI_LAYER)]))


def test_an_index_keeps_what_may_be_an_image() -> None:
    found = read(
        index(
            descriptor(OCI_MANIFEST, 1, platform={"os": "linux", "architecture": "aarch64", "variant": "v8"}),
            descriptor(DOCKER_MANIFEST, 2, platform={"os": "windows", "architecture": "amd64", "os.version": "10.0.1"}),
            descriptor("application/vnd.dev.cosign.simplesigning.v1+json", 3),
            descriptor(OCI_MANIFEST, 4, artifactType="application/vnd.sbom"),
            descriptor(OCI_INDEX, 5),
        )
    )
    assert isinstance(found, Index)
    shown = [entry.platform and entry.platform.describe() for entry in found.entries]
    assert shown == ["linux/arm64", "windows/amd64 10.0.1", None]
    assert [entry.blob.size for entry in found.entries] == [1, 2, 5]


def test_what_other_tools_write(busybox: Layout, buildah_image: Layout, zstd_layers: Layout, platforms: Layout) -> None:
    for layout in (busybox, buildah_image, zstd_layers):
        assert isinstance(read(manifest_of(layout)), Manifest)
    found = read(manifest_of(platforms))
    assert isinstance(found, Index)
    assert "windows/amd64 10.0.20348.2849" in [entry.platform.describe() for entry in found.entries if entry.platform]


@pytest.mark.parametrize(
    "document",
    [
        manifest(manifests=[]),
        index(layers=[]),
        index(config=descriptor(OCI_CONFIG)),
        manifest(fsLayers=[{"blobSum": digest(1)}]),
        index(fsLayers=[]),
    ],
)
def test_a_document_of_two_kinds_is_refused(document: dict[str, Any]) -> None:
    refused(document, "two kinds")


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        (manifest(mediaType=OCI_INDEX), ""),
        (manifest(mediaType=...), DOCKER_INDEX),
        (index(mediaType=DOCKER_MANIFEST), ""),
        (index(mediaType=...), OCI_MANIFEST),
    ],
)
def test_a_media_type_of_the_other_kind_is_refused(document: dict[str, Any], media_type: str) -> None:
    refused(document, "not what its media type", media_type)


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        ({"schemaVersion": 1, "fsLayers": [], "history": []}, ""),
        ({"schemaVersion": 2}, "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        (manifest(mediaType="application/vnd.docker.distribution.manifest.v1+json"), ""),
    ],
)
def test_schema_1_is_refused_by_name(document: dict[str, Any], media_type: str) -> None:
    assert "skopeo" in (refused(document, "schema 1", media_type).hint or "")


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        (manifest(config=descriptor("application/vnd.cncf.helm.config.v1+json")), "helm"),
        (
            manifest(config=descriptor("application/vnd.oci.empty.v1+json"), artifactType="application/x-model"),
            "x-model",
        ),
        (manifest(config=descriptor("")), "unknown type"),
    ],
)
def test_an_artifact_is_not_a_container_image(document: dict[str, Any], kind: str) -> None:
    refused(document, f"not a container image but an artifact.*{kind}")


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), "layer 1 of app:1 is foreign"),
        (descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"), "foreign"),
        (descriptor(OCI_LAYER, urls=["http://169.254.169.254/"]), "foreign"),
        (descriptor("application/vnd.in-toto+json"), "not a container layer"),
        (descriptor(OCI_LAYER + "+encrypted"), "not a container layer"),
        (descriptor(OCI_LAYER, digest="sha256:../../../etc/shadow"), "invalid digest"),
        (descriptor(OCI_LAYER, digest=digest(1).upper()), "invalid digest"),
        (descriptor(OCI_LAYER, digest="sha512:" + "0" * 128), "sha256"),
        (descriptor(OCI_LAYER, size=-1), "size"),
        (descriptor(OCI_LAYER, size=1 << 63), "size"),
        (descriptor(OCI_LAYER, size="1"), "malformed"),
        (descriptor(OCI_LAYER, size=1.5), "malformed"),
        ({"mediaType": OCI_LAYER, "digest": digest(1)}, "size"),
        ({"mediaType": OCI_LAYER, "size": 1}, "digest"),
    ],
)
def test_a_layer_that_lies(layer: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidImage, match=reason):
        read(manifest(layers=[layer]))


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"[]", b"null", b"{}", b"\xff", b"[" * 100_000, b'{"x":' * 100_000]
)
def test_what_is_no_manifest_at_all(content: bytes) -> None:
    refused(content, "not JSON|malformed|not a container image")


def test_layers_and_their_plain_digests_must_pair() -> None:
    found = read(manifest())
    assert isinstance(found, Manifest)
    pairs = pair_layers(found, [digest(8), digest(9)], "app:1")
    assert [(blob.digest, diff_id) for blob, diff_id in pairs] == [(digest(2), digest(8)), (digest(3), digest(9))]
    with pytest.raises(InvalidImage, match="2 layers in its manifest and 1 in its configuration"):
        pair_layers(found, [digest(8)], "app:1")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests", "fsLayers", "artifactType"])


@given(st.dictionaries(keys, json_values, max_size=7), st.text(max_size=20))
def test_any_document_is_read_or_refused(changes: dict[str, Any], media_type: str) -> None:
    for document in (changes, manifest(**changes), index(**changes)):
        with suppress(InvalidImage):
            read(document, media_type)
