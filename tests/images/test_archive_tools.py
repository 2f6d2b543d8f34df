"""Images that other tools made are loaded, and those that are saved are taken by other tools.

umoci, buildah, skopeo, Docker and Podman are each right about their own format; what they and pyrt say of the
same image has to agree.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from pyrt.errors import PlatformNotFound
from pyrt.images.archive import Form, load, save
from pyrt.images.importing import import_rootfs
from pyrt.images.platform import Platform
from tests import services
from tests.foreign import manifest_of, tool
from tests.images.making import assert_sound, debris

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pyrt.images.image import Image
    from pyrt.images.store import Store
    from tests.foreign import Layout

pytestmark = pytest.mark.root


def config_of_layout(layout: Layout) -> dict[str, Any]:
    """The configuration that skopeo reads."""
    found: dict[str, Any] = json.loads(tool("skopeo", "inspect", "--config", "--raw", f"oci:{layout}"))
    return found


def assert_same(image: Image, config: dict[str, Any]) -> None:
    run = config["config"]
    assert list(image.config.diff_ids) == config["rootfs"]["diff_ids"]
    assert list(image.config.env) == run.get("Env", [])
    assert list(image.config.cmd or ()) == run.get("Cmd", [])
    assert list(image.config.entrypoint or ()) == run.get("Entrypoint", [])
    assert image.config.user == run.get("User", "")
    assert image.config.labels == run.get("Labels", {})
    assert image.config.architecture == config["architecture"]


class TestLoad:
    @pytest.mark.parametrize("fixture", ["busybox", "buildah_image", "five_layers", "zstd_layers"])
    def test_a_layout(self, store: Store, request: pytest.FixtureRequest, fixture: str) -> None:
        layout: Layout = request.getfixturevalue(fixture)
        (image,) = load(store, layout.path)
        assert_same(image, config_of_layout(layout))
        assert image.id == manifest_of(layout)["config"]["digest"]
        assert image.names == (f"localhost/oci:{layout.tag}",)
        assert_sound(store)
        assert debris(store.root) == []

    @pytest.mark.parametrize("flags", ["", "-z", "--zstd"])
    def test_a_layout_in_a_tar_and_a_pipe(self, store: Store, buildah_image: Layout, flags: str) -> None:
        command = ["tar", "-c", *flags.split(), "-C", str(buildah_image.path), "."]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as tar:
            assert tar.stdout
            (image,) = load(store, tar.stdout.fileno(), name="built")
        assert tar.returncode == 0
        assert_same(image, config_of_layout(buildah_image))
        assert store.find("built") == image

    def test_an_index(self, store: Store, platforms: Layout) -> None:
        (image,) = load(store, platforms.path, platform=Platform.parse("linux/arm/v7"))
        assert str(image.platform) == "linux/arm/v7"
        (image,) = load(store, platforms.path)
        assert image.platform.os == "linux"

    def test_an_index_of_windows_alone(self, store: Store, windows_only: Layout) -> None:
        with pytest.raises(PlatformNotFound, match=r"it has: windows/amd64 10\.0\.20348\.2849, windows/amd64 10"):
            load(store, windows_only.path)
        assert store.list() == []

    def test_what_skopeo_saves(self, store: Store, docker_archive: Path, five_layers: Layout) -> None:
        (image,) = load(store, docker_archive)
        assert image.names == ("localhost/five:latest",)
        assert_same(image, config_of_layout(five_layers))
        assert_sound(store)

    def test_the_same_layers_from_two_tools_are_there_once(
        self, store: Store, docker_archive: Path, five_layers: Layout, zstd_layers: Layout
    ) -> None:
        for source in (docker_archive, five_layers.path, zstd_layers.path):
            load(store, source)
        assert len(os.listdir(store.root / "layers/sha256")) == len(set(store.list()[0].config.diff_ids))
        assert_sound(store)

    def test_what_docker_saves(self, store: Store, docker_saved: Path) -> None:
        (image,) = load(store, docker_saved)
        assert image.names == ("docker.io/example/saved:1",)
        assert image.config.user == "alice"
        assert image.config.working_dir == "/home/alice"
        assert "GREETING=hello world" in image.config.env
        assert_sound(store)

    def test_what_docker_saves_through_gzip_and_a_pipe(self, store: Store, docker_saved: Path) -> None:
        with subprocess.Popen(["gzip", "-1c", str(docker_saved)], stdout=subprocess.PIPE) as packed:
            assert packed.stdout
            (image,) = load(store, packed.stdout.fileno())
        assert packed.returncode == 0
        assert image.names == ("docker.io/example/saved:1",)

    def test_any_piece_of_docker_s_archive_that_is_missing(
        self, store: Store, docker_saved: Path, tmp_path: Path
    ) -> None:
        whole = docker_saved.read_bytes()
        for part in range(1, 8):
            (tmp_path / "cut").write_bytes(gzip.compress(whole[: len(whole) * part // 9], 1))
            with pytest.raises(Exception, match=r"cut short|not in|incomplete|neither"):
                load(store, tmp_path / "cut")
        assert store.list() == []


@pytest.fixture
def filled(store: Store, five_layers: Layout, busybox: Layout) -> Store:
    """Two images with names that say where they belong."""
    (image,) = load(store, five_layers.path)
    store.tag(image.id, "quay.io/apps/five:1")
    (image,) = load(store, busybox.path)
    store.tag(image.id, "box:1")
    return store


class TestSave:
    @pytest.mark.parametrize(("form", "transport"), [("oci-archive", "oci-archive"), ("oci-dir", "oci")])
    def test_an_oci_layout_for_skopeo(self, filled: Store, tmp_path: Path, form: Form, transport: str) -> None:
        save(filled, ["quay.io/apps/five:1"], tmp_path / "out", form=form)
        place = f"{transport}:{tmp_path / 'out'}:quay.io/apps/five:1"
        assert_same(
            filled.find("quay.io/apps/five:1"), json.loads(tool("skopeo", "inspect", "--config", "--raw", place))
        )
        tool("skopeo", "copy", place, f"dir:{tmp_path / 'copied'}")

    def test_a_docker_archive_for_skopeo(self, filled: Store, tmp_path: Path) -> None:
        save(filled, ["quay.io/apps/five:1", "box:1"], tmp_path / "out.tar")
        for name in ("quay.io/apps/five:1", "box:1"):
            place = f"docker-archive:{tmp_path / 'out.tar'}:{name}"
            assert_same(filled.find(name), json.loads(tool("skopeo", "inspect", "--config", "--raw", place)))
        # It verifies each layer's diff id as it copies.
        tool("skopeo", "copy", place, f"oci:{tmp_path / 'copied'}:box")

    def test_an_oci_layout_for_umoci(self, filled: Store, tmp_path: Path) -> None:
        image = filled.find("box:1")
        save(filled, [image.id], tmp_path / "out", form="oci-dir")
        index = json.loads((tmp_path / "out/index.json").read_text())
        assert [entry["digest"] for entry in index["manifests"]] == [image.digest]
        index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "box"}
        (tmp_path / "out/index.json").write_text(json.dumps(index))
        tool("umoci", "unpack", "--image", f"{tmp_path / 'out'}:box", tmp_path / "bundle")
        assert (tmp_path / "bundle/rootfs/bin/busybox").is_file()

    @pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
    def test_for_podman(self, filled: Store, tmp_path: Path, form: Form) -> None:
        save(filled, ["box:1"], tmp_path / "out.tar", form=form)
        with podman(tmp_path) as run:
            run("load", "-i", str(tmp_path / "out.tar"))
            (found,) = json.loads(run("image", "inspect", "docker.io/library/box:1"))
        assert f"sha256:{found['Id']}" == filled.find("box:1").id
        assert found["RootFS"]["Layers"] == list(filled.find("box:1").config.diff_ids)

    def test_for_docker(self, filled: Store, tmp_path: Path) -> None:
        save(filled, ["box:1"], tmp_path / "out.tar")
        try:
            with services.docker_daemon() as docker:
                assert "Loaded image: box:1" in docker("load", "--input", tmp_path / "out.tar")
                (found,) = json.loads(docker("image", "inspect", "box:1"))
        except services.Unavailable as reason:
            pytest.skip(str(reason))
        assert found["Id"] == filled.find("box:1").id
        assert found["RootFS"]["Layers"] == list(filled.find("box:1").config.diff_ids)

    def test_an_imported_root_for_podman(self, store: Store, busybox_rootfs: Path, tmp_path: Path) -> None:
        image = import_rootfs(store, busybox_rootfs, name="localhost/imported:1", changes=['CMD ["sh"]'])
        save(store, ["localhost/imported:1"], tmp_path / "out.tar")
        with podman(tmp_path) as run:
            run("load", "-i", str(tmp_path / "out.tar"))
            (found,) = json.loads(run("image", "inspect", "localhost/imported:1"))
        assert f"sha256:{found['Id']}" == image.id
        assert found["Config"]["Cmd"] == ["sh"]


@contextmanager
def podman(folder: Path) -> Iterator[Callable[..., str]]:
    """Podman with a store of its own and without a network."""
    # It takes no runroot of more than 50 characters.
    with TemporaryDirectory(dir="/tmp", prefix="podman-") as run_root:
        options = ["--root", str(folder / "podman"), "--runroot", run_root, "--storage-driver=vfs"]

        def run(*words: str) -> str:
            return tool("podman", *options, *words)

        yield run
        run("rmi", "--all", "--force")
