"""CVE-2020-1702, 2023-25153: documents and layers of a registry that eat the memory of whoever reads them.

What a pull may take is measured, with bodies that are in memory before it begins. What a hostile tar does to extraction
alone (sparse maps, windows, depth, a million entries) is measured in ``rust/layers/tests/scale.rs``, under the same
ceiling.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from pyrt.errors import InvalidImage
from pyrt.images.archive import load
from pyrt.images.pull import pull
from pyrt.images.store import Store
from tests.images.making import config_of, docker_archive, piped, tar_of
from tests.images.registry_fixtures import (  # noqa: F401  fixtures, by their names
    OCI_MANIFEST,
    QUICK,
    Enemy,
    Reply,
    build,
    describe,
    layer,
    make_environ,
    serve_enemy,
    sha256,
)
from tests.security.memory import Peak

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HUGE = 128 << 20
# Of a document, whose limit is 4 MiB, and of a whole pull.
SMALL, CEILING = 24 << 20, 64 << 20
HEADERS = {"Content-Type": OCI_MANIFEST}
GOOD = build(layer("file", b"content"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "store")
    yield store
    store.close()


async def refused(store: Store, enemy: Enemy, environ: dict[str, str], ceiling: int = SMALL) -> InvalidImage:
    before = Peak()
    with pytest.raises(InvalidImage) as error:
        await pull(store, f"{enemy.address}/app:1", patience=QUICK, environ=environ)
    assert before.grown() < ceiling
    assert store.list() == []
    return error.value


def chunked(body: bytes) -> Reply:
    """Nobody can tell beforehand how much it is."""
    return Reply(body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), headers={**HEADERS, "Transfer-Encoding": "chunked"})


@pytest.mark.parametrize("announced", [True, False])
async def test_a_manifest(store: Store, enemy: Enemy, environ: dict[str, str], announced: bool) -> None:
    body = GOOD.manifest + b" " * HUGE
    reply = Reply(body=body, headers=HEADERS) if announced else chunked(body)
    enemy.on("/v2/app/manifests/1", reply)
    assert "4194304" in (await refused(store, enemy, environ)).message


@pytest.mark.parametrize("lies", [True, False])
async def test_a_configuration(store: Store, enemy: Enemy, environ: dict[str, str], lies: bool) -> None:
    config = GOOD.config + b" " * HUGE
    told = describe("application/vnd.oci.image.config.v1+json", config)
    if lies:
        told["size"] = 1000
    manifest = json.dumps({**json.loads(GOOD.manifest), "config": told}).encode()
    enemy.on("/v2/app/manifests/1", Reply(body=manifest, headers=HEADERS))
    enemy.on(f"/v2/app/blobs/{told['digest']}", chunked(config))
    enemy.on(f"/v2/app/blobs/{sha256(GOOD.layers[0])}", Reply(body=GOOD.layers[0]))
    await refused(store, enemy, environ)


async def test_a_manifest_of_thousands_of_layers(store: Store, enemy: Enemy, environ: dict[str, str]) -> None:
    """Within the limit of the document."""
    enemy.offer("app", "1", GOOD)
    (entry,) = json.loads(GOOD.manifest)["layers"]
    text = json.dumps(entry)
    manifest = json.loads(GOOD.manifest) | {"layers": [entry] * ((4 << 20) // (len(text) + 2) - 10)}
    enemy.on("/v2/app/manifests/1", Reply(body=json.dumps(manifest).encode(), headers=HEADERS))
    await refused(store, enemy, environ, CEILING)


async def test_a_manifest_as_deep_as_it_is_long(store: Store, enemy: Enemy, environ: dict[str, str]) -> None:
    enemy.on("/v2/app/manifests/1", Reply(body=b'{"a":' * (700 << 10), headers=HEADERS))
    await refused(store, enemy, environ, CEILING)


async def test_a_layer_of_zeros(store: Store, enemy: Enemy, environ: dict[str, str]) -> None:
    """It is extracted, for a file may be large; in no more memory than any other."""
    image = build(layer("zeros", bytes(HUGE)))
    enemy.offer("app", "1", image)
    before = Peak()
    await pull(store, f"{enemy.address}/app:1", patience=QUICK, environ=environ)
    assert before.grown() < CEILING


@pytest.mark.parametrize("document", ["manifest.json", "config", "index.json", "index.json in a folder"])
def test_an_archive(store: Store, tmp_path: Path, document: str) -> None:
    padding = b" " * HUGE
    plain = tar_of({"file": b"content"})
    if document == "config":
        archive = docker_archive([([], config_of(plain) + padding, [plain])])
    elif document == "manifest.json":
        archive = padded(docker_archive([([], config_of(plain), [plain])]), document, padding)
    else:
        archive = tar_of(
            {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": b'{"manifests": []}' + padding}
        )
    source: Any = tmp_path / "archive"
    if "folder" in document:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(source, filter="data")
    else:
        source.write_bytes(archive)
    before = Peak()
    with pytest.raises(InvalidImage):
        load(store, source)
    assert before.grown() < SMALL
    if not source.is_dir():
        with piped(gzip.compress(archive, 1)) as descriptor:
            before = Peak()
            with pytest.raises(InvalidImage):
                load(store, descriptor)
        assert before.grown() < CEILING


def padded(archive: bytes, name: str, padding: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=buffer, mode="w") as new:
        for member in old:
            file = old.extractfile(member)
            content = file.read() + (padding if member.name == name else b"") if file else b""
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
