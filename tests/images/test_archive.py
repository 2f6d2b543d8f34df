"""Archives made by hand: the forms, the order of things in a pipe, what is missing, and what is hostile."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import subprocess
import tarfile
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from pyrt.errors import HostError, ImageNotFound, InvalidImage, PlatformNotFound, PyrtError, UsageError
from pyrt.images.archive import load, save
from pyrt.images.platform import Platform
from pyrt.images.store import Store
from tests.images.making import add, assert_sound, config_of, debris, digest_of, docker_archive, tar_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pyrt.images.progress import Progress

BASE = tar_of({"bin/sh": b"#!" * 3000})
TOP = tar_of({"app": b"1" * 3000})
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


@contextmanager
def pipe_of(data: bytes) -> Iterator[int]:
    """A real pipe with somebody at the other end."""
    source, target = os.pipe()

    def feed() -> None:
        try:
            with open(target, "wb") as file:
                file.write(data)
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield source
    finally:
        os.close(source)
        thread.join()


class Layout:
    """An OCI layout in the making: files by name."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
        self.top: list[dict[str, Any]] = []

    def blob(self, data: bytes, media_type: str = "") -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        self.files[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def image(self, *layers: bytes, pack: Callable[[bytes], bytes] = gzip.compress, **config: Any) -> dict[str, Any]:
        document = json.loads(config_of(*layers)) | config
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(json.dumps(document).encode(), "application/vnd.oci.image.config.v1+json"),
            "layers": [self.blob(pack(layer), "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers],
        }
        return self.blob(json.dumps(manifest).encode(), MANIFEST)

    def index(self, *entries: dict[str, Any]) -> dict[str, Any]:
        return self.blob(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode(), INDEX)

    def tag(self, descriptor: dict[str, Any], **annotations: str) -> None:
        self.top.append(descriptor | ({"annotations": annotations} if annotations else {}))

    def tar(self) -> bytes:
        return tar_of({**self.files, "index.json": json.dumps({"schemaVersion": 2, "manifests": self.top}).encode()})

    def write(self, folder: Path) -> Path:
        for name, data in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.top}))
        return folder


REF = "org.opencontainers.image.ref.name"
FULL = "io.containerd.image.name"


def on(descriptor: dict[str, Any], system: str, architecture: str) -> dict[str, Any]:
    return descriptor | {"platform": {"os": system, "architecture": architecture}}


class TestDockerArchive:
    ARCHIVE = docker_archive(
        [(["box:1", "quay.io/x/box:2"], config_of(BASE, TOP), [BASE, TOP]), (["base:1"], config_of(BASE), [BASE])]
    )

    def check(self, store: Store) -> None:
        assert store.find("box:1").id == store.find("quay.io/x/box:2").id == digest_of(config_of(BASE, TOP))
        assert len(store.find("box:1").layers) == 2
        assert store.find("base:1").layers == store.find("box:1").layers[1:]
        assert_sound(store)
        assert debris(store.root) == []

    @pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd])
    def test_from_a_file(self, store: Store, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
        (tmp_path / "archive").write_bytes(pack(self.ARCHIVE))
        images = load(store, tmp_path / "archive")
        assert [image.id for image in images] == [digest_of(config_of(BASE, TOP)), digest_of(config_of(BASE))]
        self.check(store)

    @pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd])
    def test_from_a_pipe(self, store: Store, pack: Callable[[bytes], bytes]) -> None:
        with pipe_of(pack(self.ARCHIVE)) as source:
            load(store, source)
        self.check(store)

    def test_layers_that_are_compressed_inside(self, store: Store) -> None:
        with pipe_of(docker_archive([(["a:1"], config_of(BASE), [BASE])], compress_layers=True)) as source:
            (image,) = load(store, source)
        assert image.config.diff_ids == (digest_of(BASE),)
        assert_sound(store)

    def test_layers_that_are_links_to_others(self, store: Store) -> None:
        archive = tar_of(
            {
                "one/layer.tar": BASE,
                "two/layer.tar": ("symlink", "../one/layer.tar"),
                "three/layer.tar": ("link", "one/layer.tar"),
                "config.json": config_of(BASE, BASE, BASE),
                "manifest.json": json.dumps(
                    [{"Config": "config.json", "Layers": [f"{name}/layer.tar" for name in ("one", "two", "three")]}]
                ).encode(),
            }
        )
        with pipe_of(archive) as source:
            (image,) = load(store, source)
        assert len(image.layers) == 1
        assert image.names == ()

    def test_what_is_here_already_is_not_extracted_again(self, store: Store, tmp_path: Path) -> None:
        add(store, BASE)
        told: list[Progress] = []
        (tmp_path / "archive").write_bytes(docker_archive([(["a:1"], config_of(BASE, TOP), [BASE, TOP])]))
        load(store, tmp_path / "archive", progress=told.append)
        assert [(each.layer, each.state) for each in told] == [
            (digest_of(BASE), "exists"),
            (digest_of(TOP), "extracting"),
            (digest_of(TOP), "done"),
        ]
        assert told[1].total == len(TOP)

    def test_another_name(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "archive").write_bytes(docker_archive([([], config_of(BASE), [BASE])]))
        (image,) = load(store, tmp_path / "archive", name="mine:1")
        assert image.names == ("docker.io/library/mine:1",)

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({"a": b"b"}, "neither manifest.json nor index.json"),
            ({"manifest.json": b"{}"}, "malformed"),
            ({"manifest.json": b"[]"}, "holds no image"),
            ({"manifest.json": b"x" * (5 << 20)}, "more than the"),
            ({"manifest.json": ("symlink", "manifest.json")}, "neither"),
            ({"manifest.json": b'[{"Config": "c"}]'}, "c is not in"),
            ({"manifest.json": b'[{"Config": "../../../etc/passwd"}]'}, r"\.\./etc/passwd is not in"),
            ({"manifest.json": b'[{"Config": "c"}]', "c": ("symlink", "/etc/passwd")}, "c is not in"),
            ({"manifest.json": b'[{"Config": "c"}]', "c": b"x" * (2 << 20)}, "more than the"),
            ({"manifest.json": b'[{"Config": "c"}]', "c": b"{}"}, "lists no layers"),
            ({"manifest.json": b'[{"Config": "c"}]', "c": config_of(BASE)}, "0 layers, and 1"),
            ({"manifest.json": b'[{"Config": "c", "Layers": ["l"]}]', "c": config_of(BASE)}, "l is not in"),
            ({"manifest.json": b'[{"Config": "c", "Layers": ["l"]}]', "c": config_of(BASE), "l": TOP}, "promised"),
            (
                {"manifest.json": b'[{"Config": "c", "RepoTags": ["A B"], "Layers": ["l"]}]', "c": config_of(BASE)},
                "no valid name",
            ),
            (
                {"manifest.json": b'[{"Config": "c", "Layers": ["l", "l"]}]', "c": config_of(BASE, TOP), "l": BASE},
                "two different layers|promised",
            ),
        ],
    )
    @pytest.mark.parametrize("by_pipe", [False, True])
    def test_what_is_refused(
        self, store: Store, tmp_path: Path, files: dict[str, bytes | tuple[str, str]], message: str, by_pipe: bool
    ) -> None:
        if by_pipe:
            with pipe_of(tar_of(files)) as source, pytest.raises(InvalidImage, match=message):
                load(store, source)
        else:
            (tmp_path / "archive").write_bytes(tar_of(files))
            with pytest.raises(InvalidImage, match=message):
                load(store, tmp_path / "archive")
        assert store.list() == []
        store.prune()
        assert debris(store.root) == []

    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_cut_anywhere(self, store: Store, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
        data = pack(self.ARCHIVE)
        end = len(data.rstrip(b"\0")) - 1
        for length in [*range(0, end, end // 40), end]:
            (tmp_path / "archive").write_bytes(data[:length])
            with pytest.raises(InvalidImage):
                load(store, tmp_path / "archive")
        assert store.list() == []
        store.prune()
        assert debris(store.root) == []

    def test_a_text(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "readme").write_text("hello world\n" * 100)
        with pytest.raises(InvalidImage, match="it is no tar"):
            load(store, tmp_path / "readme")

    def test_no_such_file(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="No such file"):
            load(store, tmp_path / "none")


class TestLayout:
    @pytest.fixture(params=["folder", "tar", "pipe"])
    def load(self, request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Callable[..., Any]:
        """Loads a layout from a folder, a tar, or a pipe."""

        def load_layout(layout: Layout, **options: Any) -> Any:
            if request.param == "folder":
                return load(store, layout.write(tmp_path / "layout"), **options)
            if request.param == "tar":
                (tmp_path / "layout.tar").write_bytes(layout.tar())
                return load(store, tmp_path / "layout.tar", **options)
            with pipe_of(layout.tar()) as source:
                return load(store, source, **options)

        load_layout.by_pipe = request.param == "pipe"  # type: ignore[attr-defined]
        return load_layout

    def test_keeps_manifest_and_blobs_as_they_are(self, store: Store, load: Callable[..., Any]) -> None:
        layout = Layout()
        entry = layout.image(BASE, TOP)
        layout.tag(entry, **{REF: "quay.io/x/box:1"})
        (image,) = load(layout)
        assert image.digest == entry["digest"]
        assert image.names == ("quay.io/x/box:1",)
        manifest, media_type = store.raw_manifest(image)
        assert (manifest, media_type) == (layout.files[f"blobs/sha256/{entry['digest'][7:]}"], MANIFEST)
        assert_sound(store)
        assert debris(store.root) == []

    def test_names_in_every_form(self, load: Callable[..., Any]) -> None:
        layout = Layout()
        one, two, three = layout.image(BASE), layout.image(TOP), layout.image(BASE, TOP)
        layout.tag(one, **{REF: "1", FULL: "docker.io/library/box:1"})
        layout.tag(one, **{REF: "2", FULL: "docker.io/library/box:2"})
        layout.tag(two, **{REF: "mine:3"})
        layout.tag(three, **{REF: "v4"})
        names = [image.names for image in load(layout)]
        assert names[0] == ("docker.io/library/box:1", "docker.io/library/box:2")
        assert names[1] == ("docker.io/library/mine:3",)
        assert names[2] == (() if load.by_pipe else ("localhost/layout:v4",))  # type: ignore[attr-defined]

    def test_one_without_a_name_is_called_after_its_folder(self, load: Callable[..., Any]) -> None:
        layout = Layout()
        layout.tag(layout.image(BASE))
        (image,) = load(layout)
        assert image.names == (() if load.by_pipe else ("localhost/layout:latest",))  # type: ignore[attr-defined]

    def test_the_platform_that_fits(self, load: Callable[..., Any], store: Store) -> None:
        layout = Layout()
        amd, arm = layout.image(BASE), layout.image(TOP, architecture="arm64")
        windows = layout.image(BASE, TOP, os="windows")
        index = layout.index(on(windows, "windows", "amd64"), on(arm, "linux", "arm64"), on(amd, "linux", "amd64"))
        layout.tag(index, **{REF: "box:1"})
        (image,) = load(layout, platform=Platform.parse("linux/arm64"))
        assert image.digest == arm["digest"]
        (image,) = load(layout, platform=Platform.parse("linux/amd64"))
        assert image.digest == amd["digest"]
        with pytest.raises(PlatformNotFound, match="it has: windows/amd64, linux/arm64, linux/amd64"):
            load(layout, platform=Platform.parse("linux/s390x"))

    def test_an_index_of_which_only_a_part_is_there(self, load: Callable[..., Any]) -> None:
        """What a Docker with containerd's store saves: the whole index, one platform's blobs, an attestation."""
        layout = Layout()
        amd, arm = layout.image(BASE), layout.image(TOP, architecture="arm64")
        attestation = layout.image(BASE, TOP, os="unknown", architecture="unknown")
        del layout.files[f"blobs/sha256/{amd['digest'][7:]}"]
        index = layout.index(
            on(amd, "linux", "amd64"), on(arm, "linux", "arm64"), on(attestation, "unknown", "unknown")
        )
        layout.tag(index, **{FULL: "docker.io/library/box:1"})
        (image,) = load(layout)
        assert image.digest == arm["digest"]

    def test_platforms_at_the_top(self, load: Callable[..., Any]) -> None:
        layout = Layout()
        layout.tag(on(layout.image(BASE), "linux", "amd64"))
        layout.tag(on(layout.image(TOP, architecture="arm64"), "linux", "arm64"))
        (image,) = load(layout, platform=Platform.parse("linux/arm64"))
        assert image.config.architecture == "arm64"

    def test_docker_names_beside_an_index_that_has_none(self, load: Callable[..., Any]) -> None:
        layout = Layout()
        layout.tag(layout.image(BASE))
        config = json.dumps(json.loads(config_of(BASE))).encode()
        layout.files["manifest.json"] = json.dumps(
            [{"Config": f"blobs/sha256/{digest_of(config)[7:]}", "RepoTags": ["box:1"], "Layers": []}]
        ).encode()
        (image,) = load(layout)
        assert image.names == ("docker.io/library/box:1",)

    def test_a_blob_with_other_bytes(self, load: Callable[..., Any], store: Store) -> None:
        for kind in ("config", "layers", "manifest"):
            layout = Layout()
            entry = layout.image(BASE)
            manifest = json.loads(layout.files[f"blobs/sha256/{entry['digest'][7:]}"])
            digest = {
                "config": manifest["config"]["digest"],
                "layers": manifest["layers"][0]["digest"],
                "manifest": entry["digest"],
            }[kind]
            data = bytearray(layout.files[f"blobs/sha256/{digest[7:]}"])
            data[-1] ^= 1
            layout.files[f"blobs/sha256/{digest[7:]}"] = bytes(data)
            layout.tag(entry)
            with pytest.raises(InvalidImage):
                load(layout)
        assert store.list() == []
        store.prune()
        assert debris(store.root) == []

    @pytest.mark.parametrize("what", ["../../../etc/passwd", "sha256:../../../etc/passwd", "md5:" + "1" * 32, 5])
    def test_a_digest_that_is_a_path(self, load: Callable[..., Any], store: Store, what: object) -> None:
        """CVE-2024-3727 and its kin."""
        layout = Layout()
        layout.tag({"mediaType": MANIFEST, "digest": what, "size": 1})
        with pytest.raises(InvalidImage):
            load(layout)
        layout = Layout()
        config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": what, "size": 1}
        layout.tag(layout.blob(json.dumps({"schemaVersion": 2, "config": config, "layers": []}).encode(), MANIFEST))
        with pytest.raises(InvalidImage):
            load(layout)
        assert store.list() == []

    @pytest.mark.parametrize("index", [b"", b"[]", b"{}", b'{"manifests": [5]}', b'{"manifests": {}}', b"[" * 100_000])
    def test_an_index_that_is_none(self, store: Store, tmp_path: Path, index: bytes) -> None:
        (tmp_path / "layout").mkdir()
        (tmp_path / "layout/index.json").write_bytes(index)
        with pytest.raises(InvalidImage):
            load(store, tmp_path / "layout")

    def test_indexes_without_end(self, load: Callable[..., Any]) -> None:
        layout = Layout()
        entry = layout.image(BASE)
        for _ in range(9):
            entry = layout.index(entry)
        layout.tag(entry)
        with pytest.raises(InvalidImage, match="deep"):
            load(layout)

    @pytest.mark.parametrize("trap", ["symlink", "fifo", "folder", "parent"])
    def test_a_folder_with_traps(self, store: Store, tmp_path: Path, trap: str) -> None:
        layout = Layout()
        entry = layout.image(BASE)
        layout.tag(entry)
        folder = layout.write(tmp_path / "layout")
        blob = folder / "blobs/sha256" / entry["digest"][7:]
        if trap == "parent":
            (folder / "blobs").rename(tmp_path / "elsewhere")
            (folder / "blobs").symlink_to(tmp_path / "elsewhere")
        else:
            blob.rename(tmp_path / "blob")
            {
                "symlink": lambda: blob.symlink_to(tmp_path / "blob"),
                "fifo": lambda: os.mkfifo(blob),
                "folder": blob.mkdir,
            }[trap]()
        with pytest.raises(InvalidImage):
            load(store, folder)


class TestSave:
    @pytest.fixture
    def filled(self, store: Store) -> Store:
        add(store, BASE, TOP, name="box:1", Env=["A=1"])
        store.tag("box:1", "quay.io/x/box:2")
        add(store, BASE, name="base:1")
        return store

    @pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
    def test_and_load_elsewhere(self, filled: Store, tmp_path: Path, form: Any) -> None:
        save(filled, ["box:1", "quay.io/x/box:2", "base:1"], tmp_path / "out", form=form)
        with Store.open(tmp_path / "other") as other:
            load(other, tmp_path / "out")
            for name in ("box:1", "quay.io/x/box:2", "base:1"):
                assert other.find(name).id == filled.find(name).id
                assert other.find(name).config == filled.find(name).config
                if form != "docker-archive":
                    assert other.find(name).digest == filled.find(name).digest
            assert len(other.list()) == 2
            assert_sound(other)

    @pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
    def test_to_a_pipe_and_from_it(self, filled: Store, tmp_path: Path, form: Any) -> None:
        source, target = os.pipe()

        def write() -> None:
            try:
                save(filled, ["box:1"], target, form=form)
            finally:
                os.close(target)

        thread = threading.Thread(target=write)
        thread.start()
        with Store.open(tmp_path / "other") as other:
            load(other, source)
            assert other.find("box:1").id == filled.find("box:1").id
        thread.join()
        os.close(source)

    def test_by_id_it_has_no_name(self, filled: Store, tmp_path: Path) -> None:
        save(filled, [filled.find("box:1").id], tmp_path / "out.tar")
        with tarfile.open(tmp_path / "out.tar") as tar:
            file = tar.extractfile("manifest.json")
            assert file
            assert json.load(file)[0]["RepoTags"] == []

    def test_the_same_images_give_the_same_bytes(self, filled: Store, tmp_path: Path) -> None:
        for name in ("one", "two"):
            save(filled, ["box:1", "base:1"], tmp_path / name)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()

    @pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
    def test_a_damaged_layer_is_not_handed_on(self, filled: Store, tmp_path: Path, form: Any) -> None:
        (layer,) = filled.layers_of(filled.find("base:1"))
        path = filled.root / "blobs/sha256" / layer.digest[7:]
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(InvalidImage):
            save(filled, ["base:1"], tmp_path / "out", form=form)
        assert sorted(os.listdir(tmp_path)) == ["state"]

    def test_refused(self, filled: Store, tmp_path: Path) -> None:
        with pytest.raises(ImageNotFound):
            save(filled, ["none"], tmp_path / "out")
        with pytest.raises(UsageError, match="no image"):
            save(filled, [], tmp_path / "out")
        (tmp_path / "full").mkdir()
        (tmp_path / "full/file").touch()
        with pytest.raises(UsageError, match="not empty"):
            save(filled, ["box:1"], tmp_path / "full", form="oci-dir")
        with pytest.raises(UsageError, match="descriptor"):
            save(filled, ["box:1"], 1, form="oci-dir")
        with pytest.raises(HostError, match="No such file"):
            save(filled, ["box:1"], tmp_path / "none/out")
        assert not (tmp_path / "out").exists()

    def test_a_disk_without_room(self, filled: Store) -> None:
        with open("/dev/full", "wb") as full, pytest.raises(HostError, match="No space left"):
            save(filled, ["box:1"], full.fileno())

    def test_an_old_file_stays_until_the_new_one_is_whole(self, filled: Store, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("old")
        with pytest.raises(PyrtError):
            save(filled, ["box:1", "none"], tmp_path / "out")
        assert (tmp_path / "out").read_text() == "old"
        save(filled, ["box:1"], tmp_path / "out")
        assert tarfile.is_tarfile(tmp_path / "out")
