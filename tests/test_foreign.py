"""The images that the other tests lean on are what they claim to be."""

from __future__ import annotations

import json
import tarfile
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.foreign import Layout, layers, manifest_of
from tests.services import Registry

pytestmark = pytest.mark.root


def test_layouts_have_the_layers_that_they_promise(
    busybox: Layout, debian: Layout, five_layers: Layout, zstd_layers: Layout, buildah_image: Layout
) -> None:
    assert [len(layers(layout)) for layout in (busybox, debian, five_layers, zstd_layers)] == [1, 1, 5, 5]
    assert len(layers(buildah_image)) >= 1
    assert {layer["mediaType"].rpartition("+")[2] for layer in layers(zstd_layers)} == {"zstd"}


def test_archives_have_a_manifest(docker_archive: Path, docker_saved: Path) -> None:
    for archive, name, count in ((docker_archive, "localhost/five:latest", 5), (docker_saved, "example/saved:1", 3)):
        with tarfile.open(archive) as tar:
            file = tar.extractfile("manifest.json")
            assert file is not None
            [image] = json.load(file)
        assert (image["RepoTags"], len(image["Layers"])) == ([name], count)


def test_indexes_name_their_platforms(platforms: Layout, windows_only: Layout) -> None:
    entries: Any = manifest_of(platforms)["manifests"]
    named = [(entry["platform"]["os"], entry["platform"]["architecture"]) for entry in entries]
    assert named == [("linux", "amd64"), ("linux", "arm64"), ("linux", "arm"), ("linux", "s390x"), ("windows", "amd64")]
    entries = manifest_of(windows_only)["manifests"]
    assert [entry["platform"]["os.version"] for entry in entries] == ["10.0.20348.2849", "10.0.26100.2605"]


def test_the_registries_serve_and_one_of_them_asks_who_is_there(registry: Registry, private_registry: Registry) -> None:
    with urllib.request.urlopen(f"http://{registry.address}/v2/apps/five/tags/list") as answer:
        assert sorted(json.load(answer)["tags"]) == ["five", "latest"]
    request = urllib.request.Request(f"http://{private_registry.address}/v2/_catalog")
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(request)
    refused.value.close()
    assert private_registry.credentials is not None
    request.add_header("Authorization", "Basic " + b64encode(":".join(private_registry.credentials).encode()).decode())
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["repositories"] == ["apps/five", "busybox", "debian", "platforms"]
