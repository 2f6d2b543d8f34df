"""The engine's verbs on images, with images that other people's tools made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pyrt.engine.events import (
    ImageEvent,
    ImageImported,
    ImageLoaded,
    ImageRemoved,
    ImageSaved,
    ImageTagged,
    ImageUntagged,
)
from pyrt.errors import ImageInUse, ImageNotFound

if TYPE_CHECKING:
    from pathlib import Path

    from pyrt.engine.engine import Engine
    from tests.foreign import Layout

pytestmark = pytest.mark.root


async def told(engine: Engine) -> list[tuple[type, str]]:
    """Kind and name of what was told of images."""
    events = [event async for event in engine.events(0, follow=False)]
    return [(type(event), event.name) for event in events if isinstance(event, ImageEvent)]


async def test_from_a_root_file_system_to_a_container(engine: Engine, busybox_rootfs: Path) -> None:
    image = await engine.import_image(busybox_rootfs, name="box", changes=['CMD ["sh", "-c", "echo from the image"]'])
    assert engine.find_image("box") == image
    done = await engine.run("box")
    assert done.stdout == b"from the image\n"
    assert (await engine.run(image, ["id", "-u"])).stdout == b"0\n"
    assert await told(engine) == [(ImageImported, "box")]


async def test_what_one_container_writes_no_other_sees(engine: Engine, busybox_rootfs: Path) -> None:
    await engine.import_image(busybox_rootfs, name="box")
    assert (await engine.run("box", ["sh", "-c", "echo x > /file; rm /bin/ls; cat /file"])).stdout == b"x\n"
    done = await engine.run("box", ["sh", "-c", "ls /file; echo $?"])
    assert done.stdout == b"1\n"


@pytest.mark.parametrize("options", [{"read_only": True}, {"upper": "tmpfs"}, {"userns": "host"}, {"init": True}])
async def test_root_file_systems_of_every_kind(engine: Engine, busybox_rootfs: Path, options: dict[str, Any]) -> None:
    await engine.import_image(busybox_rootfs, name="box")
    done = await engine.run("box", ["sh", "-c", "touch /file; echo $?; cat /etc/hostname"], hostname="name", **options)
    assert done.stdout == (b"1\nname\n" if "read_only" in options else b"0\nname\n"), done.stderr
    await engine.settled()


async def test_an_image_of_another_tool(engine: Engine, busybox: Layout, tmp_path: Path) -> None:
    (loaded,) = await engine.load(busybox.path, name="theirs")
    assert [image.id for image in await engine.images()] == [loaded.id]
    assert (await engine.run("theirs", ["echo", "hello"])).stdout == b"hello\n"
    await engine.save(["theirs"], tmp_path / "saved.tar")
    await engine.settled()
    removed = await engine.remove_image(loaded.id, force=True)
    assert removed.deleted == (loaded.id,)
    assert [image.id for image in await engine.load(tmp_path / "saved.tar")] == [loaded.id]
    kinds = [kind for kind, _ in await told(engine)]
    assert kinds[:2] == [ImageLoaded, ImageSaved]
    assert kinds[-2:] == [ImageRemoved, ImageLoaded]


async def test_names_come_and_go(engine: Engine, busybox_rootfs: Path) -> None:
    image = await engine.import_image(busybox_rootfs, name="box")
    await engine.tag("box", "crate:2")
    assert engine.find_image("crate:2").id == image.id
    await engine.remove_image("box")
    with pytest.raises(ImageNotFound):
        await engine.run("box")
    assert (await engine.run("crate:2", ["true"])).exit_code == 0
    assert [kind for kind, _ in await told(engine)] == [ImageImported, ImageTagged, ImageUntagged]


async def test_an_image_in_use_stays(engine: Engine, busybox_rootfs: Path) -> None:
    image = await engine.import_image(busybox_rootfs, name="box")
    async with engine.open_container("box", ["cat"]):
        with pytest.raises(ImageInUse):
            await engine.remove_image(image.id)
        assert (await engine.prune_images(all=True)).deleted == ()
        assert (await engine.usage()).images[0].in_use
    await engine.settled()
    assert (await engine.prune_images(all=True)).deleted == (image.id,)


async def test_the_steps_are_told_before_anything_is_made(engine: Engine, busybox_rootfs: Path) -> None:
    from pyrt.runtime.options import make_options

    await engine.import_image(busybox_rootfs, name="box")
    before = engine.journal.span()
    steps = engine.explain("box", make_options(["true"]))
    names = [step.name for step in steps]
    assert names[-1] == "Exec"
    assert {"Clone", "NewOverlay", "PivotRoot", "LoadSeccomp"} <= set(names)
    assert engine.journal.span() == before
    done = await engine.run("box", ["true"])
    assert [mark.name for mark in done.timing.marks if mark.part == "child"] == [
        step.name for step in steps if step.part == "child"
    ]
