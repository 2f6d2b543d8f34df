"""Pulling: whole or not at all, from honest registries with other tools' images and from hostile ones."""

from __future__ import annotations

import gzip
import json
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from pyrt.errors import ImageNotFound, InvalidImage, PlatformNotFound, RegistryError, Unauthorized, UsageError
from pyrt.images.image import Image as StoredImage
from pyrt.images.platform import Platform
from pyrt.images.progress import Progress
from pyrt.images.pull import pull
from pyrt.images.reference import Reference
from pyrt.images.store import Store
from tests.foreign import Layout, manifest_of, tool
from tests.images.registry_fixtures import (  # noqa: F401  fixtures, by their names
    OCI_MANIFEST,
    QUICK,
    Enemy,
    Image,
    Reply,
    Seen,
    build,
    describe,
    layer,
    log_in,
    make_environ,
    ranged,
    serve_enemy,
    serve_stranger,
    sha256,
)
from tests.services import Registry as Service
from tests.services import serving

NOISE = random.Random(4).randbytes(1 << 20)
TAR = layer("noise", NOISE)


class Puller:
    """Pulls into one store, and remembers what it was told."""

    def __init__(self, store: Store, environ: dict[str, str]) -> None:
        self.store = store
        self.environ = environ
        self.told: list[Progress] = []

    async def __call__(self, name: str | Reference, **options: Any) -> StoredImage:
        self.told.clear()
        return await pull(self.store, name, progress=self.told.append, patience=QUICK, environ=self.environ, **options)

    def states(self, digest: str) -> list[str]:
        return list(dict.fromkeys(each.state for each in self.told if each.layer == digest))

    def debris(self) -> list[str]:
        """What is left of pulls that did not end well, locks aside."""
        return [str(path) for path in (self.store.root / "ingest").rglob("*")]

    def is_untouched(self) -> bool:
        folders = [self.store.root / name / "sha256" for name in ("blobs", "layers")]
        return not self.store.list() and not any(any(folder.iterdir()) for folder in folders) and not self.debris()


@pytest.fixture
def puller(store: Store, environ: dict[str, str]) -> Puller:
    return Puller(store, environ)


def files(image: StoredImage) -> dict[str, bytes]:
    """What the regular files of the layers hold, path by path, the topmost winning."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for folder in map(Path, reversed(image.layers))
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


# ---- honest registries, other people's images ---------------------------------------------------


async def test_an_image_of_umoci_s(puller: Puller, registry: Service, busybox: Layout, busybox_rootfs: Path) -> None:
    image = await puller(f"{registry.address}/busybox")
    manifest: Any = manifest_of(busybox)
    assert image.names == (f"{registry.address}/busybox:latest",)
    assert image.id == manifest["config"]["digest"]
    assert image.repo_digests == (f"{registry.address}/busybox@{image.digest}",)
    assert image.config.cmd == ("sh",)
    assert set(os.listdir(image.layers[0])) == set(os.listdir(busybox_rootfs))
    (blob,) = manifest["layers"]
    assert puller.states(blob["digest"]) == ["waiting", "downloading", "extracting", "done"]
    assert puller.told[-1] == Progress(blob["digest"], "done", blob["size"], blob["size"])
    assert puller.store.find(f"{registry.address}/busybox") == image
    assert not puller.debris()


async def test_what_is_there_is_not_fetched_again(puller: Puller, registry: Service) -> None:
    first = await puller(f"{registry.address}/busybox:latest")
    second = await puller(f"{registry.address}/busybox:latest")
    assert second == first
    assert {each.state for each in puller.told} == {"waiting", "exists"}


async def test_five_layers_by_digest_have_no_name(puller: Puller, registry: Service) -> None:
    by_tag = await puller(f"{registry.address}/apps/five:five")
    assert len(by_tag.layers) == 5
    puller.store.remove(f"{registry.address}/apps/five:five")
    by_digest = await puller(f"{registry.address}/apps/five:five@{by_tag.digest}")
    assert by_digest.names == ()
    assert by_digest.repo_digests == (f"{registry.address}/apps/five@{by_tag.digest}",)
    assert by_digest.id == by_tag.id


async def test_a_password_is_found_in_docker_s_file(puller: Puller, private_registry: Service) -> None:
    with pytest.raises(Unauthorized):
        await puller(f"{private_registry.address}/busybox")
    assert puller.is_untouched()
    log_in(puller.environ, private_registry.address, *(private_registry.credentials or ("", "")))
    assert (await puller(f"{private_registry.address}/busybox")).config.cmd == ("sh",)


async def test_images_by_buildah_and_with_zstd_layers(
    puller: Puller, tmp_path: Path, buildah_image: Layout, zstd_layers: Layout
) -> None:
    with serving(tmp_path / "storage") as registry:
        for layout in (buildah_image, zstd_layers):
            push = ("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}")
            await trio.to_thread.run_sync(tool, *push, f"docker://{registry.address}/{layout.tag}:1")
        built = await puller(f"{registry.address}/built:1")
        assert files(built)["built"] == b"yes\n"
        assert len((await puller(f"{registry.address}/zstd:1")).layers) == 5
        docker = ("skopeo", "copy", "--format=v2s2", "--dest-tls-verify=false", f"oci:{buildah_image}")
        await trio.to_thread.run_sync(tool, *docker, f"docker://{registry.address}/docker:1")
        assert files(await puller(f"{registry.address}/docker:1")) == files(built)


async def test_the_image_for_this_or_another_platform(puller: Puller, registry: Service) -> None:
    name = f"{registry.address}/platforms:index"
    here = await puller(name)
    assert here.platform.architecture == Platform.parse("linux").architecture
    there = await puller(name, platform="linux/arm/v7")
    assert str(there.platform) == "linux/arm/v7"
    assert there.id != here.id
    assert there.repo_digests == here.repo_digests
    windows = await puller(name, platform=Platform.parse("windows/amd64"))
    assert windows.platform.os == "windows"


async def test_no_image_for_this_platform_lists_what_there_is(puller: Puller, registry: Service) -> None:
    with pytest.raises(PlatformNotFound) as caught:
        await puller(f"{registry.address}/platforms:index", platform="linux/riscv64")
    assert caught.value.message == (
        f"no image for linux/riscv64 in {registry.address}/platforms:index; it has: linux/amd64, linux/arm64, "
        "linux/arm/v7, linux/s390x, windows/amd64 10.0.20348.2849"
    )
    assert "windows/amd64 10.0.20348.2849" in caught.value.available
    assert puller.is_untouched()


async def test_an_index_of_nothing_but_windows(puller: Puller, tmp_path: Path, windows_only: Layout) -> None:
    with serving(tmp_path / "storage") as registry:
        push = ("skopeo", "copy", "--all", "--dest-tls-verify=false", f"oci:{windows_only}")
        await trio.to_thread.run_sync(tool, *push, f"docker://{registry.address}/windows:1")
        with pytest.raises(PlatformNotFound, match=r"windows/amd64 10\.0\.20348\.2849, windows/amd64 10\.0\.26100"):
            await puller(f"{registry.address}/windows:1", platform="linux/amd64")


async def test_two_pulls_at_once_share_the_work(puller: Puller, registry: Service) -> None:
    other = Puller(puller.store, puller.environ)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(puller, f"{registry.address}/apps/five:five")
        nursery.start_soon(other, f"{registry.address}/apps/five:latest")
    (image,) = puller.store.list()
    assert len(image.names) == 2
    done = [each.layer for each in puller.told + other.told if each.state == "done"]
    assert len(done) == len(set(done)) == 5


@pytest.mark.parametrize("name", ["nowhere/app", "busybox:no-such-tag"])
async def test_what_the_registry_does_not_have(puller: Puller, registry: Service, name: str) -> None:
    with pytest.raises(ImageNotFound, match=r"does not have|no repository"):
        await puller(f"{registry.address}/{name}")
    assert puller.is_untouched()


# ---- names --------------------------------------------------------------------------------------


def configure(environ: dict[str, str], content: str) -> None:
    Path(environ["CONTAINERS_REGISTRIES_CONF"]).write_text(content)


async def test_short_names_and_mirrors(puller: Puller, registry: Service, enemy: Enemy) -> None:
    configure(
        puller.environ,
        f"""
        unqualified-search-registries = ["{enemy.address}", "elsewhere.test"]
        [[registry]]
        location = "elsewhere.test"
        [[registry.mirror]]
        location = "{registry.address}"
        """,
    )
    image = await puller("busybox:latest")
    # Named after the registry that was meant, not the mirror that had it.
    assert image.names == ("elsewhere.test/busybox:latest",)
    assert [seen.path for seen in enemy.seen] == ["/v2/", "/v2/busybox/manifests/latest"]


async def test_when_no_place_has_it_each_is_named(puller: Puller, enemy: Enemy, stranger: Enemy) -> None:
    configure(puller.environ, f'unqualified-search-registries = ["{enemy.address}", "{stranger.address}"]')
    with pytest.raises(ImageNotFound) as caught:
        await puller("app")
    assert enemy.address in caught.value.message
    assert stranger.address in caught.value.message


async def test_a_full_name_is_not_looked_for_elsewhere(puller: Puller, enemy: Enemy, stranger: Enemy) -> None:
    configure(puller.environ, f'unqualified-search-registries = ["{stranger.address}"]')
    with pytest.raises(ImageNotFound):
        await puller(Reference.parse(f"{enemy.address}/app"))
    assert not stranger.seen


async def test_malformed_names_and_platforms(puller: Puller) -> None:
    for name, platform in (("Up/../x", None), ("debian", "a/b/c/d")):
        with pytest.raises(UsageError):
            await puller(name, platform=platform)


# ---- lies ---------------------------------------------------------------------------------------


async def test_an_honest_image_from_the_test_s_own_server(puller: Puller, enemy: Enemy) -> None:
    enemy.offer("app", "1", build(layer("a", b"A"), layer("b", b"B"), layer("a", b"A")))
    image = await puller(f"{enemy.address}/app:1")
    assert files(image) == {"a": b"A", "b": b"B"}


def without(blob: bytes) -> bytes:
    return blob[:-1]


def flipped(blob: bytes) -> bytes:
    return blob[:-5] + bytes([blob[-5] ^ 1]) + blob[-4:]


@pytest.mark.parametrize("which", ["config", "layer"])
@pytest.mark.parametrize("change", [flipped, without, lambda blob: blob + b"\0"])
async def test_a_blob_that_is_not_what_was_promised(puller: Puller, enemy: Enemy, which: str, change: Any) -> None:
    image = build(TAR)
    enemy.offer("app", "1", image)
    blob = image.config if which == "config" else image.layers[0]
    enemy.on(f"/v2/app/blobs/{sha256(blob)}", ranged(change(blob)))
    with pytest.raises(InvalidImage):
        await puller(f"{enemy.address}/app:1")
    assert puller.is_untouched()


def valid_but_other(image: Image) -> dict[str, Any]:
    return json.loads(image.manifest)  # type: ignore[no-any-return]


async def test_a_layer_that_is_another_than_the_configuration_says(puller: Puller, enemy: Enemy) -> None:
    image = build(TAR, configured={"rootfs": {"type": "layers", "diff_ids": [sha256(b"other")]}})
    enemy.offer("app", "1", image)
    with pytest.raises(InvalidImage, match="digest"):
        await puller(f"{enemy.address}/app:1")
    assert puller.is_untouched()


async def test_a_layer_that_is_no_layer(puller: Puller, enemy: Enemy) -> None:
    image = build(TAR)
    junk = gzip.compress(b"junk" * 1000)[:-20]
    document = {**valid_but_other(image), "layers": [describe("application/vnd.oci.image.layer.v1.tar+gzip", junk)]}
    enemy.offer("app", "1", Image(json.dumps(document).encode(), image.config, (junk,)))
    with pytest.raises(InvalidImage):
        await puller(f"{enemy.address}/app:1")
    assert puller.is_untouched()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"manifests": []}, "two kinds"),
        ({"layers": []}, "0 layers in its manifest and 1 in its configuration"),
        ({"config": {"mediaType": "application/vnd.helm", "digest": sha256(b""), "size": 0}}, "artifact"),
        ({"config": {**describe("application/vnd.oci.image.config.v1+json", b""), "size": 2 << 20}}, "limit"),
        ({"config": {**describe("application/vnd.oci.image.config.v1+json", b""), "digest": "sha256:../.."}}, "digest"),
        ({"schemaVersion": 1}, "schema 1"),
    ],
)
async def test_a_manifest_that_lies(puller: Puller, enemy: Enemy, changes: dict[str, Any], reason: str) -> None:
    enemy.offer("app", "1", build(TAR, **changes))
    with pytest.raises(InvalidImage, match=reason):
        await puller(f"{enemy.address}/app:1")
    assert puller.is_untouched()
    assert not [seen for seen in enemy.seen if ".." in seen.path]


async def test_an_image_for_another_machine_is_refused_before_its_layers(puller: Puller, enemy: Enemy) -> None:
    image = build(TAR, configured={"architecture": "s390x"})
    enemy.offer("app", "1", image)
    with pytest.raises(PlatformNotFound, match="it has: linux/s390x") as caught:
        await puller(f"{enemy.address}/app:1")
    assert caught.value.hint == "choose one with --platform linux/s390x"
    assert not enemy.asked(f"/v2/app/blobs/{sha256(image.layers[0])}")
    assert (await puller(f"{enemy.address}/app:1", platform="linux/s390x")).layers


async def test_an_index_in_an_index(puller: Puller, enemy: Enemy) -> None:
    image = build(layer("a", b"A"))
    enemy.offer("app", "inner", image)
    content, kind = image.manifest, OCI_MANIFEST
    for depth in range(5):
        entry = describe(kind, content)
        content, kind = json.dumps({"manifests": [entry]}).encode(), "application/vnd.oci.image.index.v1+json"
        for name in (sha256(content), str(depth)):
            enemy.on(f"/v2/app/manifests/{name}", Reply(body=content, headers={"Content-Type": kind}))
    assert files(await puller(f"{enemy.address}/app:2")) == {"a": b"A"}
    with pytest.raises(InvalidImage, match="more than 3 deep"):
        await puller(f"{enemy.address}/app:4")


# ---- broken lines -------------------------------------------------------------------------------


def layer_path(image: Image) -> str:
    return f"/v2/app/blobs/{sha256(image.layers[0])}"


async def test_a_cut_in_mid_layer_is_not_noticed_by_the_extraction(puller: Puller, enemy: Enemy) -> None:
    image = build(TAR)
    enemy.offer("app", "1", image)
    enemy.on(layer_path(image), ranged(image.layers[0], cut=300_000))
    assert files(await puller(f"{enemy.address}/app:1")) == {"noise": NOISE}
    assert len(enemy.asked(layer_path(image))) > 3


async def test_what_has_come_before_a_failure_is_not_fetched_again(puller: Puller, enemy: Enemy) -> None:
    image = build(TAR)
    enemy.offer("app", "1", image)
    enemy.on(layer_path(image), ranged(image.layers[0], cut=600_000), Reply(500))
    with pytest.raises(RegistryError, match="500"):
        await puller(f"{enemy.address}/app:1")
    assert not puller.store.list()
    enemy.on(layer_path(image), ranged(image.layers[0]))
    assert (await puller(f"{enemy.address}/app:1")).layers
    start = int(enemy.seen[-1].headers["range"].removeprefix("bytes=").rstrip("-"))
    assert 0 < start <= 600_000
    assert not puller.debris()


async def test_a_damaged_part_of_an_earlier_attempt_is_fetched_again(puller: Puller, enemy: Enemy) -> None:
    image = build(TAR)
    enemy.offer("app", "1", image)
    enemy.on(layer_path(image), ranged(image.layers[0], cut=600_000), Reply(500))
    with pytest.raises(RegistryError):
        await puller(f"{enemy.address}/app:1")
    (part,) = (Path(name) for name in puller.debris() if "blob-" in name)
    content = part.read_bytes()
    part.write_bytes(b"\0" * len(content))
    enemy.on(layer_path(image), ranged(image.layers[0]))
    assert (await puller(f"{enemy.address}/app:1")).layers
    assert not puller.debris()


async def test_the_first_failure_ends_the_other_layers(puller: Puller, enemy: Enemy) -> None:
    image = build(TAR, layer("b", b"B"))
    enemy.offer("app", "1", image)
    enemy.on(layer_path(image), Reply(body=image.layers[0], cut=1000, hang=True))
    enemy.on(f"/v2/app/blobs/{sha256(image.layers[1])}", Reply(404))
    with trio.fail_after(20), pytest.raises(ImageNotFound):
        await puller(f"{enemy.address}/app:1")
    assert not puller.store.list()


async def test_a_pull_may_be_cancelled_while_bytes_come(puller: Puller, enemy: Enemy) -> None:
    image = build(TAR)
    enemy.offer("app", "1", image)
    enemy.on(layer_path(image), Reply(body=image.layers[0], cut=500_000, hang=True))
    arrived = trio.Event()

    def notice(told: Progress) -> None:
        if told.state == "downloading" and told.current >= 256 << 10:
            arrived.set()

    async with trio.open_nursery() as nursery:

        async def run() -> None:
            with pytest.raises(trio.Cancelled):
                await pull(
                    puller.store,
                    f"{enemy.address}/app:1",
                    progress=notice,
                    patience=QUICK,
                    environ=puller.environ,
                )
            await trio.lowlevel.checkpoint()

        nursery.start_soon(run)
        await arrived.wait()
        # What has come is written behind the download's back: there must be something that can be resumed.
        with trio.fail_after(20):
            while not any(os.path.getsize(path) for path in puller.debris() if os.path.isfile(path)):  # noqa: ASYNC110, ASYNC240
                await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    assert not puller.store.list()
    enemy.on(layer_path(image), ranged(image.layers[0]))
    assert (await puller(f"{enemy.address}/app:1")).layers
    assert "range" in enemy.seen[-1].headers
    assert not puller.debris()


async def test_a_pull_may_be_cancelled_at_any_checkpoint(puller: Puller, enemy: Enemy) -> None:
    """Cancelled at its first, second, third ... wait, it leaves no image, no thread and no locked layer."""
    image = build(layer("a", b"A"), layer("b", b"B"))
    enemy.offer("app", "1", image)
    enemy.offer("app", "other", build(layer("c", b"C")))
    await puller(f"{enemy.address}/app:other")
    puller.store.prune(all=True)
    before = descriptors()
    for deadline in range(1, 2000):
        await _cancelled_after(deadline, puller, f"{enemy.address}/app:1")
        if puller.store.list():
            break
    else:
        pytest.fail("it never came to an end")
    assert files(puller.store.find(f"{enemy.address}/app:1")) == {"a": b"A", "b": b"B"}
    assert not puller.debris()
    assert descriptors() == before


def descriptors() -> list[str]:
    """What this process has open, but for sockets: those of the server on the other side close when they see fit."""
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return sorted("pipe" if link.startswith("pipe:") else link for link in links if not link.startswith("socket:"))


async def _cancelled_after(waits: int, puller: Puller, name: str) -> None:
    """Run a pull until the scheduler has run its tasks so many times."""

    class Countdown(trio.abc.Instrument):
        left = waits

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            if scope.cancel_called or task.name.startswith("trio"):
                return
            self.left -= 1
            if self.left <= 0:
                scope.cancel()

    countdown = Countdown()
    with trio.fail_after(20), trio.CancelScope() as scope:
        trio.lowlevel.add_instrument(countdown)
        try:
            await puller(name)
        finally:
            trio.lowlevel.remove_instrument(countdown)


async def test_waiting_for_another_s_layer_can_be_cancelled(puller: Puller, enemy: Enemy) -> None:
    image = build(TAR)
    enemy.offer("app", "1", image)
    diff_id = sha256(TAR)
    with puller.store.ingest_layer(diff_id, sha256(image.layers[0])):
        with trio.move_on_after(0.3) as scope:
            await puller(f"{enemy.address}/app:1")
        assert scope.cancelled_caught
    assert (await puller(f"{enemy.address}/app:1")).layers


async def test_no_more_than_so_many_layers_come_at_once(puller: Puller, enemy: Enemy) -> None:
    image = build(*(layer(f"file-{number}", NOISE[:100_000]) for number in range(6)))
    enemy.offer("app", "1", image)
    await puller(f"{enemy.address}/app:1", layers_at_once=2)
    active: set[str] = set()
    most = 0
    for told in puller.told:
        if told.state == "downloading":
            active.add(told.layer)
        elif told.state == "done":
            active.discard(told.layer)
        most = max(most, len(active))
    assert 1 <= most <= 2


async def test_credentials_of_the_registry_stay_there(puller: Puller, enemy: Enemy, stranger: Enemy) -> None:
    """The whole of a pull with a store for blobs behind redirects: nobody but the registry sees the password."""
    image = build(TAR)
    log_in(puller.environ, enemy.address, "alice", "secret")
    enemy.offer("app", "1", image)
    for blob in (image.config, image.layers[0]):
        path = f"/v2/app/blobs/{sha256(blob)}"
        stranger.on(path, ranged(blob))
        enemy.on(path, challenge_then(Reply(307, headers={"Location": stranger.url + path})))
    await puller(f"{enemy.address}/app:1")
    assert len(stranger.seen) == 2
    assert not [seen for seen in stranger.seen if seen.authorization]


def challenge_then(reply: Reply) -> Any:
    def answer(seen: Seen) -> Reply:
        return reply if seen.authorization else Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    return answer
