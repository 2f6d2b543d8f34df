"""A disk without room, a real one: a sentence, nothing half done, and success once there is room."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from pyrt.errors import StateError
from pyrt.images.archive import load
from pyrt.images.store import Store
from tests.images.making import add, assert_sound, config_of, debris, docker_archive, tar_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

BIG = tar_of({"big": os.urandom(600_000)})
SMALL = tar_of({"small": b"s" * 1000})


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=200", "pyrt-test", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(path: Path, leave: int) -> None:
    """Take all the room but ``leave`` bytes."""
    room = os.statvfs(path.parent)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - leave)


@pytest.mark.parametrize("leave", [0, 4096, 16384, 65536, 300_000, 700_000, 1_000_000])
def test_adding_an_image(disk: Path, leave: int) -> None:
    with Store.open(disk / "state") as store:
        before = add(store, SMALL, name="before")
        fill(disk / "filler", leave)
        with pytest.raises(StateError) as raised:
            add(store, BIG, name="big")
        assert raised.value.hint
        assert store.find("before") == before
        assert [image.id for image in store.list()] == [before.id]
        (disk / "filler").unlink()
        add(store, BIG, name="big")
        store.prune()
        assert_sound(store)
        assert len(store.list()) == 2
    assert debris(disk / "state") == []


def test_loading_an_archive(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "archive.tar").write_bytes(docker_archive([(["big:1"], config_of(BIG), [BIG])]))
    with Store.open(disk / "state") as store:
        fill(disk / "filler", 400_000)
        with pytest.raises(StateError, match="No space left"):
            load(store, tmp_path / "archive.tar")
        assert store.list() == []
        (disk / "filler").unlink()
        load(store, tmp_path / "archive.tar")
        assert_sound(store)
        store.prune()
    assert debris(disk / "state") == []


def test_removing_when_nothing_can_be_written(disk: Path) -> None:
    with Store.open(disk / "state") as store:
        add(store, BIG, name="big")
        fill(disk / "filler", 65536)
        store.remove("big")
        assert store.list() == []
    assert debris(disk / "state") == []


def test_no_inodes(disk: Path) -> None:
    with Store.open(disk / "state") as store:
        add(store, SMALL, name="before")
        left = os.statvfs(disk).f_ffree
        for number in range(left):
            (disk / f"filler{number}").touch()
        with pytest.raises(StateError):
            add(store, BIG, name="big")
        for number in range(left):
            (disk / f"filler{number}").unlink()
        add(store, BIG, name="big")
        assert_sound(store)
        store.prune()
    assert debris(disk / "state") == []


def test_no_room_to_create_the_store(disk: Path) -> None:
    fill(disk / "filler", 0)
    with pytest.raises(StateError, match=r"full|No space|reading or writing"):
        Store.open(disk / "state")
