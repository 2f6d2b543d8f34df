"""Finding, naming, removing: what a person sees of the store. Names and removal behave as Docker's do."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrt.errors import ImageInUse, ImageNotFound, InvalidImage, StateError, UsageError
from pyrt.images.store import Store
from tests.images.making import add, assert_sound, config_of, debris, digest_of, ingest, tar_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrt.images.blobs import VerifiedReader

BASE = tar_of({"bin/sh": b"#!", "etc/passwd": b"root:x:0:0::/:/bin/sh\n"})
TOP = tar_of({"app": b"1"})
OTHER = tar_of({"app": b"2"})
DIGEST = "sha256:" + "ab" * 32


def hexes(image_id: str) -> str:
    return image_id.removeprefix("sha256:")


class TestFind:
    def test_by_every_name_of_it(self, store: Store) -> None:
        image = add(store, BASE, TOP, name="debian:12", repo_digest=f"docker.io/library/debian@{DIGEST}")
        for text in (
            "debian:12",
            "docker.io/debian:12",
            "docker.io/library/debian:12",
            f"debian@{DIGEST}",
            f"debian:whatever@{DIGEST}",
            image.id,
            hexes(image.id),
            hexes(image.id)[:12],
            hexes(image.id)[:4],
            f"sha256:{hexes(image.id)[:8]}",
        ):
            assert store.find(text) == image, text

    def test_what_it_tells(self, store: Store) -> None:
        image = add(store, BASE, TOP, name="box", Env=["A=1"], Cmd=["sh"])
        assert image.names == ("docker.io/library/box:latest",)
        assert image.config.env == ("A=1",)
        assert image.size == len(BASE) + len(TOP)
        assert str(image.platform) == "linux/amd64"
        assert image.created is not None
        assert image.created.isoformat() == "2024-02-03T04:05:06.123456+00:00"
        topmost, lowest = image.layers
        assert Path(topmost, "app").read_text() == "1"
        assert os.path.exists(f"{lowest}/bin/sh")
        assert store.raw_manifest(image)[0]

    def test_without_a_tag_it_is_latest(self, store: Store) -> None:
        image = add(store, BASE, name="box")
        assert store.find("box:latest") == image
        with pytest.raises(ImageNotFound, match="no image 'box:2'"):
            store.find("box:2")

    def test_a_name_comes_before_an_id(self, store: Store) -> None:
        image = add(store, BASE)
        named = add(store, TOP, name=hexes(image.id)[:6])
        assert store.find(hexes(image.id)[:6]) == named
        assert store.find(hexes(image.id)[:7]) == image

    def test_too_short_or_malformed(self, store: Store) -> None:
        image = add(store, BASE)
        with pytest.raises(ImageNotFound):
            store.find(hexes(image.id)[:3])
        with pytest.raises(UsageError):
            store.find("Not A Name")
        with pytest.raises(ImageNotFound):
            store.find("sha256:" + "0" * 64)

    def test_ambiguous(self, store: Store) -> None:
        with store._database.write() as database:
            for end in ("1", "2"):
                database.execute("INSERT INTO images VALUES (?, '', '')", (f"sha256:0001{'0' * 59}{end}",))
        with pytest.raises(UsageError, match="ambiguous"):
            store.find("0001")

    def test_a_layer_that_comes_twice_is_stacked_once(self, store: Store) -> None:
        image = add(store, TOP, BASE, TOP)
        assert len(image.layers) == 2
        assert image.layers[0].endswith(hexes(image.config.diff_ids[0]))
        assert_sound(store)

    def test_an_opaque_root_hides_all_below(self, store: Store) -> None:
        """A marker at the root of a layer, on which overlayfs does not act."""
        opaque = tar_of({".wh..wh..opq": b"", "only": b"1"})
        image = add(store, BASE, opaque, TOP)
        assert [os.path.exists(f"{layer}/bin/sh") for layer in image.layers] == [False, False]
        assert os.path.exists(f"{image.layers[1]}/only")
        with Store.open(store.root) as fresh:
            assert fresh.find(image.id) == image

    def test_an_image_without_layers(self, store: Store) -> None:
        assert add(store, name="empty").layers == ()

    def test_is_quick(self, store: Store) -> None:
        add(store, BASE, TOP, name="debian:12")
        store.find("debian:12")
        best = min(_seconds(store, "debian:12") for _ in range(200))
        assert best < 100e-6

    def test_sees_what_another_process_does(self, store: Store) -> None:
        first = add(store, BASE, name="box")
        second = add(store, TOP)
        assert store.find("box") == first
        with Store.open(store.root) as other:
            other.tag(second.id, "box")
        assert store.find("box").id == second.id
        assert store.find(first.id).names == ()

    def test_a_layer_that_is_gone_is_told_and_can_be_fetched_again(self, store: Store) -> None:
        image = add(store, BASE, name="box")
        os.rename(image.layers[0], store.root / "away")
        store.tag(image.id, "other")
        with pytest.raises(InvalidImage, match="of image box:latest is gone"):
            store.find("box")
        assert not store.has_layer(image.config.diff_ids[0])
        ingest(store, BASE)
        assert store.find("box").layers == image.layers


class TestList:
    def test_youngest_first(self, store: Store) -> None:
        add(store, BASE)
        add(store, TOP)
        assert {image.id for image in store.list()} == {add(store, BASE).id, add(store, TOP).id}

    def test_a_damaged_image_is_listed_and_can_be_removed(self, store: Store) -> None:
        image = add(store, BASE, name="box")
        good = add(store, TOP, name="good")
        _damage(store.root / "blobs" / "sha256" / hexes(image.id))
        with Store.open(store.root) as fresh:
            with pytest.raises(InvalidImage, match="configuration of image box:latest is damaged") as raised:
                fresh.find("box")
            assert "again" in str(raised.value.hint)
            assert {each.id for each in fresh.list()} == {image.id, good.id}
            assert fresh.remove("box").deleted == (image.id,)
            assert [each.id for each in fresh.list()] == [good.id]

    def test_a_damaged_image_is_healed_by_adding_it_again(self, store: Store) -> None:
        image = add(store, BASE, name="box")
        _damage(store.root / "blobs" / "sha256" / hexes(image.id))
        _damage(store.root / "blobs" / "sha256" / hexes(image.digest))
        with Store.open(store.root) as fresh:
            assert add(fresh, BASE, name="box") == image
            assert_sound(fresh)


class TestDamage:
    @pytest.mark.parametrize("where", [0, 5, -1])
    def test_a_flipped_byte_in_a_layer_is_found_and_put_aside(self, store: Store, where: int) -> None:
        image = add(store, BASE, name="box")
        (layer,) = store.layers_of(image)
        path = store.root / "blobs" / "sha256" / hexes(layer.digest)
        data = bytearray(path.read_bytes())
        data[where] ^= 1
        path.write_bytes(data)
        with (
            store.read_layer(layer, image) as blob,
            pytest.raises(InvalidImage, match="of image box:latest is damaged"),
        ):
            drain(blob)
        assert not path.exists()
        assert list(path.parent.glob("*.damaged"))
        assert not store.has_layer(layer.diff_id)
        ingest(store, BASE)
        assert_sound(store)
        store.prune()
        assert debris(store.root) == []

    @pytest.mark.parametrize("make", [lambda path: os.symlink("/etc/passwd", path), os.mkfifo, os.mkdir])
    def test_a_blob_that_is_something_else(self, store: Store, make: Callable[[Path], None]) -> None:
        image = add(store, BASE, name="box")
        path = store.root / "blobs" / "sha256" / hexes(image.digest)
        path.unlink()
        make(path)
        with pytest.raises((InvalidImage, StateError)):
            store.raw_manifest(image)


class TestTag:
    def test_moves_a_name(self, store: Store) -> None:
        first, second = add(store, BASE, name="a:1"), add(store, TOP, name="b:1")
        store.tag("b:1", "a:1")
        assert store.find("a:1").id == second.id
        assert store.find(second.id).names == ("docker.io/library/a:1", "docker.io/library/b:1")
        assert store.find(first.id).names == ()

    def test_refuses_a_digest_and_an_unknown_source(self, store: Store) -> None:
        image = add(store, BASE)
        with pytest.raises(UsageError, match="digest"):
            store.tag(image.id, f"a@{DIGEST}")
        with pytest.raises(ImageNotFound):
            store.tag("b", "a")


class TestRemove:
    def test_one_of_several_names(self, store: Store) -> None:
        image = add(store, BASE, name="a:1")
        store.tag("a:1", "a:2")
        removed = store.remove("a:1", in_use={image.id})
        assert (removed.untagged, removed.deleted) == (("docker.io/library/a:1",), ())
        assert store.find("a:2").id == image.id

    def test_the_last_name_takes_the_image_with_it(self, store: Store) -> None:
        image = add(store, BASE, TOP, name="a:1", repo_digest=f"docker.io/library/a@{DIGEST}")
        removed = store.remove("a:1")
        assert removed.untagged == ("docker.io/library/a:1", f"docker.io/library/a@{DIGEST}")
        assert removed.deleted == (image.id,)
        assert set(removed.layers) == set(image.config.diff_ids)
        assert removed.reclaimed > len(BASE)
        assert store.list() == []
        assert debris(store.root) == []
        assert not any(os.path.exists(layer) for layer in image.layers)

    def test_layers_that_others_have_stay(self, store: Store) -> None:
        add(store, BASE, TOP, name="a")
        other = add(store, BASE, OTHER, name="b")
        assert store.remove("a").layers == add_diff(TOP)
        assert_sound(store)
        assert store.find("b") == other

    def test_a_digest_holds_an_image_as_a_name_does(self, store: Store) -> None:
        image = add(store, BASE, name="a", repo_digest=f"quay.io/x/y@{DIGEST}")
        assert store.remove("a").deleted == ()
        assert store.find(f"quay.io/x/y@{DIGEST}").id == image.id
        assert store.remove(f"quay.io/x/y@{DIGEST}").deleted == (image.id,)

    def test_a_digest_goes_and_the_name_stays(self, store: Store) -> None:
        image = add(store, BASE, name="a", repo_digest=f"docker.io/library/a@{DIGEST}")
        assert store.remove(f"a@{DIGEST}").untagged == (f"docker.io/library/a@{DIGEST}",)
        assert store.find("a").id == image.id

    def test_by_id(self, store: Store) -> None:
        image = add(store, BASE, name="a:1")
        store.tag("a:1", "b:1")
        with pytest.raises(ImageInUse, match="several names: a:1, b:1"):
            store.remove(hexes(image.id)[:12])
        assert len(store.find("a:1").names) == 2
        removed = store.remove(image.id, force=True)
        assert len(removed.untagged) == 2
        assert removed.deleted == (image.id,)

    def test_in_use(self, store: Store) -> None:
        image = add(store, BASE, name="a:1")
        for text in ("a:1", image.id):
            with pytest.raises(ImageInUse, match="a container uses"):
                store.remove(text, in_use={image.id})
        assert store.find("a:1") == image
        assert store.remove("a:1", force=True, in_use={image.id}).deleted == ()
        assert os.path.isdir(store.find(image.id).layers[0])
        assert store.prune(in_use={image.id}).deleted == ()
        assert store.prune().deleted == (image.id,)

    def test_while_somebody_reads_the_files_stay(self, store: Store) -> None:
        image = add(store, BASE, name="a")
        with store.pinned():
            assert store.remove("a").deleted == (image.id,)
            assert os.path.isdir(image.layers[0])
        assert store.sweep().layers == image.config.diff_ids
        assert debris(store.root) == []

    def test_unknown(self, store: Store) -> None:
        with pytest.raises(ImageNotFound):
            store.remove("a")


class TestPrune:
    def test_what_has_no_name(self, store: Store) -> None:
        old = add(store, BASE, name="a", repo_digest=f"docker.io/library/a@{DIGEST}")
        new = add(store, TOP, name="a")
        pruned = store.prune()
        assert (pruned.deleted, pruned.untagged) == ((old.id,), (f"docker.io/library/a@{DIGEST}",))
        assert [image.id for image in store.list()] == [new.id]

    def test_everything_that_is_not_used(self, store: Store) -> None:
        used, _ = add(store, BASE, name="a"), add(store, TOP, name="b")
        store.prune(all=True, in_use={used.id})
        assert [image.id for image in store.list()] == [used.id]

    def test_layers_of_an_image_that_never_came(self, store: Store) -> None:
        ingest(store, BASE)
        store.sweep()
        assert store.has_layer(*add_diff(BASE))
        assert store.prune().layers == add_diff(BASE)
        assert debris(store.root) == []


class TestUsage:
    def test_shared_and_unique(self, store: Store) -> None:
        a, b = add(store, BASE, TOP, name="a"), add(store, BASE, OTHER, name="b")
        usage = store.usage(in_use={a.id})
        by_id = {each.id: each for each in usage.images}
        assert (by_id[a.id].shared, by_id[a.id].unique) == (len(BASE), len(TOP))
        assert by_id[a.id].in_use
        assert not by_id[b.id].in_use
        assert usage.layers == len(BASE) + len(TOP) + len(OTHER)
        store.remove("b")
        assert usage.reclaimable == usage.size - store.usage().size

    def test_of_nothing(self, store: Store) -> None:
        assert store.usage().size == 0


class TestAddImage:
    def test_manifest_and_configuration_must_agree(self, store: Store) -> None:
        layer = ingest(store, BASE)
        with pytest.raises(InvalidImage, match="same layers"):
            store.add_image(manifest=b"{}", manifest_media_type="", config=config_of(TOP), layers=[layer])
        assert store.list() == []

    def test_a_layer_must_be_there_and_of_the_promised_size(self, store: Store) -> None:
        digest, diff_id, size = ingest(store, BASE)
        with pytest.raises(InvalidImage, match="bytes, and not"):
            store.add_image(
                manifest=b"{}", manifest_media_type="", config=config_of(BASE), layers=[(digest, diff_id, size + 1)]
            )
        store.prune()
        with pytest.raises(StateError, match="removed while"):
            store.add_image(
                manifest=b"{}", manifest_media_type="", config=config_of(BASE), layers=[(digest, diff_id, size)]
            )
        store.prune()
        assert debris(store.root) == []

    def test_again_adds_the_name(self, store: Store) -> None:
        first = add(store, BASE, name="a")
        assert add(store, BASE, name="b").id == first.id
        assert len(store.find("a").names) == 2


class TestStateFolder:
    @pytest.mark.parametrize("umask", [0, 0o077, 0o777])
    @pytest.mark.root
    def test_nobody_else_walks_in_whatever_the_umask(self, tmp_path: Path, umask: int) -> None:
        """CVE-2021-41103."""
        before = os.umask(umask)
        try:
            with Store.open(tmp_path / "state") as store:
                add(store, BASE, TOP, name="a")
        finally:
            os.umask(before)
        for folder, _, _ in os.walk(tmp_path / "state"):
            if "/layers/sha256/" not in folder:
                assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700, folder
        for name in ("store.db", *(f"blobs/sha256/{n}" for n in os.listdir(tmp_path / "state/blobs/sha256"))):
            assert stat.S_IMODE(os.stat(tmp_path / "state" / name).st_mode) == 0o600, name
        for layer in os.listdir(tmp_path / "state/layers/sha256"):
            # The mode of "/" in the container.
            assert stat.S_IMODE(os.stat(tmp_path / "state/layers/sha256" / layer).st_mode) == 0o755
        walk = (
            "import os,sys\n"
            "folder = os.open(sys.argv[1], os.O_PATH)\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "for name in ('.', 'layers', 'blobs', 'ingest', 'store.db'):\n"
            "    try:\n"
            "        fd = os.open(name, os.O_RDONLY, dir_fd=folder)\n"
            "    except PermissionError:\n"
            "        continue\n"
            "    sys.exit(name)\n"
        )
        subprocess.run([sys.executable, "-c", walk, str(tmp_path / "state")], check=True, timeout=30)

    def test_a_mode_that_somebody_loosened_is_corrected(self, tmp_path: Path) -> None:
        Store.open(tmp_path / "state").close()
        os.chmod(tmp_path / "state/layers", 0o755)
        Store.open(tmp_path / "state").close()
        assert stat.S_IMODE(os.stat(tmp_path / "state/layers").st_mode) == 0o700

    def test_a_folder_of_somebody_else_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "letter.txt").write_text("dear")
        os.chmod(tmp_path, 0o755)
        with pytest.raises(StateError, match="holds other things"):
            Store.open(tmp_path)
        assert stat.S_IMODE(os.stat(tmp_path).st_mode) == 0o755
        assert os.listdir(tmp_path) == ["letter.txt"]

    def test_not_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StateError, match="Not a directory"):
            Store.open(tmp_path / "file" / "state")

    def test_a_database_that_is_none(self, tmp_path: Path) -> None:
        Store.open(tmp_path / "state").close()
        (tmp_path / "state" / "store.db").write_bytes(b"garbage " * 1000)
        with pytest.raises(StateError, match="damaged") as raised:
            Store.open(tmp_path / "state")
        assert raised.value.hint

    def test_a_database_with_damaged_pages(self, tmp_path: Path) -> None:
        with Store.open(tmp_path / "state") as store:
            add(store, BASE, name="a")
        path = tmp_path / "state" / "store.db"
        data = bytearray(path.read_bytes())
        data[4096:] = b"\xff" * (len(data) - 4096)
        path.write_bytes(data)
        with Store.open(tmp_path / "state") as store, pytest.raises(StateError, match="damaged"):
            store.find("a")

    def test_a_newer_version(self, tmp_path: Path) -> None:
        Store.open(tmp_path / "state").close()
        with sqlite3.connect(tmp_path / "state" / "store.db") as database:
            database.execute("PRAGMA user_version = 99")
        database.close()
        with pytest.raises(StateError, match="newer pyrt") as raised:
            Store.open(tmp_path / "state")
        assert "upgrade" in str(raised.value.hint)

    def test_the_database_of_another_program(self, tmp_path: Path) -> None:
        (tmp_path / "state" / "blobs").mkdir(parents=True)
        with sqlite3.connect(tmp_path / "state" / "store.db") as database:
            database.execute("PRAGMA application_id = 1234")
            database.execute("CREATE TABLE t (a)")
        database.close()
        with pytest.raises(StateError, match="another program"):
            Store.open(tmp_path / "state")

    @pytest.mark.root
    def test_a_read_only_file_system(self, tmp_path: Path) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "pyrt-test", str(tmp_path)], check=True)
        try:
            with pytest.raises(StateError, match="Read-only") as raised:
                Store.open(tmp_path / "state")
            assert "PYRT_ROOT" in str(raised.value.hint)
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)


def drain(blob: VerifiedReader) -> None:
    while blob.read(64):
        pass


def add_diff(layer: bytes) -> tuple[str]:
    return (digest_of(layer),)


def _damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x20
    path.write_bytes(data)


def _seconds(store: Store, name: str) -> float:
    begin = time.perf_counter()
    store.find(name)
    return time.perf_counter() - begin
