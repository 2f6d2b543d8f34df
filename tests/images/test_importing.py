"""Images from nothing but a directory or a tar: what Debian has is enough."""

from __future__ import annotations

import io
import os
import socket
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from pyrt.errors import InvalidImage, UsageError
from pyrt.images.importing import import_rootfs
from pyrt.images.platform import Platform
from pyrt.images.store import Store
from tests.images.making import assert_sound, config_of, debris, docker_archive, tar_of


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A little of everything that a root file system may hold."""
    root = tmp_path / "tree"
    (root / "bin").mkdir(parents=True)
    (root / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "bin/sh").symlink_to("busybox")
    os.link(root / "bin/busybox", root / "bin/ls")
    (root / "empty").mkdir(mode=0o711)
    (root / os.fsdecode(b"caf\xe9")).write_text("x")
    (root / ("long" * 50)).write_text("x")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    os.utime(root / "bin/busybox", ns=(1, 1_700_000_000_123_456_789))
    os.utime(root / "empty", ns=(1, -5_500_000_000))
    os.chmod(root, 0o751)
    return root


def test_a_directory(store: Store, tree: Path) -> None:
    image = import_rootfs(store, tree, name="box:1", changes=['CMD ["sh"]', "ENV A=1"], message="by hand")
    assert image.names == ("docker.io/library/box:1",)
    assert image.config.cmd == ("sh",)
    assert image.config.history[0].comment == "by hand"
    assert (image.platform.os, image.platform.variant) == ("linux", "")
    layer = Path(image.layers[0])
    assert stat.S_IMODE(layer.stat().st_mode) == 0o751
    assert os.readlink(layer / "bin/sh") == "busybox"
    assert (layer / "bin/busybox").read_bytes() == Path("/bin/busybox").read_bytes()
    assert (layer / "bin/ls").stat().st_ino == (layer / "bin/busybox").stat().st_ino
    assert stat.S_ISFIFO((layer / "fifo").stat().st_mode)
    assert stat.S_IMODE((layer / "empty").stat().st_mode) == 0o711
    assert (layer / os.fsdecode(b"caf\xe9")).exists()
    assert (layer / ("long" * 50)).exists()
    assert not (layer / "socket").exists()
    assert_sound(store)
    assert debris(store.root) == []


def test_its_tar_is_what_other_tools_read(store: Store, tree: Path) -> None:
    image = import_rootfs(store, tree)
    (layer,) = store.layers_of(image)
    listed = subprocess.run(
        ["tar", "-tvf", str(store.root / "blobs/sha256" / layer.digest[7:]), "--full-time", "--numeric-owner"],
        capture_output=True,
        check=True,
        env={**os.environ, "TZ": "UTC", "LC_ALL": "C"},
    ).stdout.decode()
    assert "2023-11-14 22:13:20.123456789 ./bin/busybox" in listed.replace(" bin/", " ./bin/")
    assert "link to bin/busybox" in listed
    with tarfile.open(store.root / "blobs/sha256" / layer.digest[7:]) as tar:
        assert tar.getmember("empty").pax_headers["mtime"] == "-5.500000000"


@pytest.mark.root
def test_devices_owners_and_capabilities(store: Store, tree: Path) -> None:
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chown(tree / "empty", 12345, 54321)
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(tree / "bin/busybox", "security.capability", capability)
    os.setxattr(tree / "bin/busybox", "trusted.overlay.opaque", b"y")
    image = import_rootfs(store, tree)
    (layer,) = store.layers_of(image)
    with tarfile.open(store.root / "blobs/sha256" / layer.digest[7:]) as tar:
        null, empty, busybox = (tar.getmember(name) for name in ("null", "empty", "bin/busybox"))
    assert (null.type, null.devmajor, null.devminor) == (tarfile.CHRTYPE, 1, 3)
    assert (empty.uid, empty.gid) == (12345, 54321)
    assert busybox.pax_headers["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape") == capability
    assert "SCHILY.xattr.trusted.overlay.opaque" not in busybox.pax_headers


@pytest.mark.root
def test_another_file_system_is_left_out_but_for_its_mount_point(store: Store, tree: Path) -> None:
    (tree / "mnt").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "pyrt-test", str(tree / "mnt")], check=True)
    try:
        (tree / "mnt/secret").write_text("x")
        layer = Path(import_rootfs(store, tree).layers[0])
    finally:
        subprocess.run(["umount", str(tree / "mnt")], check=True)
    assert (layer / "mnt").is_dir()
    assert not (layer / "mnt/secret").exists()


def test_the_store_itself_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with Store.open(tmp_path / "state") as store:
        layer = import_rootfs(store, tmp_path).layers[0]
        assert os.listdir(layer) == ["file"]


@pytest.mark.parametrize("flag", ["", "-z", "-j", "-J", "--zstd"])
def test_a_tar_in_any_compression(store: Store, tree: Path, tmp_path: Path, flag: str) -> None:
    archive = tmp_path / "rootfs.tar"
    subprocess.run(["tar", "-c", *flag.split(), "-f", str(archive), "-C", str(tree), "."], check=True)
    image = import_rootfs(store, archive, name="box")
    assert os.readlink(f"{image.layers[0]}/bin/sh") == "busybox"
    assert_sound(store)


def test_a_pipe(store: Store, tree: Path) -> None:
    with subprocess.Popen(["tar", "-c", "-C", str(tree), "."], stdout=subprocess.PIPE) as tar:
        assert tar.stdout
        image = import_rootfs(store, tar.stdout.fileno())
    assert os.path.exists(f"{image.layers[0]}/bin/busybox")


def test_another_platform(store: Store, tree: Path) -> None:
    image = import_rootfs(store, tree, platform=Platform.parse("linux/arm64"))
    assert str(image.platform) == "linux/arm64"


def test_a_directory_and_its_tar_give_the_same_layer_again(store: Store, tree: Path) -> None:
    first, second = import_rootfs(store, tree), import_rootfs(store, tree)
    assert first.layers == second.layers
    assert len(os.listdir(store.root / "layers/sha256")) == 1


def test_a_directory_deeper_than_the_stack(store: Store, tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    os.mkdir("deep", dir_fd=folder)
    for name in ["deep"] + ["d"] * 400:
        if name == "d":
            os.mkdir(name, dir_fd=folder)
        inner = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    image = import_rootfs(store, tmp_path / "deep")
    assert os.path.isdir(f"{image.layers[0]}/{'d/' * 400}")


class TestRefused:
    def check(self, store: Store) -> None:
        assert store.list() == []
        store.prune()
        assert debris(store.root) == []

    def test_no_such_path(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="No such file"):
            import_rootfs(store, tmp_path / "none")

    def test_a_name_that_would_be_a_whiteout(self, store: Store, tree: Path) -> None:
        (tree / "bin/.wh.ls").write_text("")
        with pytest.raises(InvalidImage, match=r"bin/\.wh\.ls can't be in a layer"):
            import_rootfs(store, tree)
        self.check(store)

    def test_not_a_tar(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("hello " * 500)
        with pytest.raises(InvalidImage):
            import_rootfs(store, tmp_path / "text")
        self.check(store)

    def test_an_image_archive(self, store: Store, tmp_path: Path) -> None:
        layer = tar_of({"a": b"1"})
        (tmp_path / "image.tar").write_bytes(docker_archive([(["a:1"], config_of(layer), [layer])]))
        with pytest.raises(UsageError, match="is an image archive") as raised:
            import_rootfs(store, tmp_path / "image.tar")
        assert "pyrt load" in str(raised.value.hint)
        self.check(store)

    def test_a_bad_name_or_change_before_anything_is_read(self, store: Store) -> None:
        with pytest.raises(UsageError):
            import_rootfs(store, "/proc/self/none", name="Bad Name")
        with pytest.raises(UsageError, match="RUN"):
            import_rootfs(store, "/proc/self/none", changes=["RUN x"])

    def test_a_file_that_shrinks(self, store: Store, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            member = tarfile.TarInfo("a")
            member.size = 5000
            tar.addfile(member, io.BytesIO(b"x" * 5000))
        (tmp_path / "cut.tar").write_bytes(buffer.getvalue()[:3000])
        with pytest.raises(InvalidImage):
            import_rootfs(store, tmp_path / "cut.tar")
        self.check(store)
