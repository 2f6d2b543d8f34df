"""CVE-2021-30465, 2024-45310: a link is put in the place of a folder between the look at it and the mount on it.

A folder that several containers share is mounted, and another mount goes below it. Whoever holds the shared folder
exchanges that place and a link to the host as fast as the kernel can, while containers are started.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pyrt.errors import StartFailed
from tests.security.making import ROUNDS

if TYPE_CHECKING:
    from pathlib import Path

    from pyrt.engine.engine import Engine
    from tests.security.conftest import Canary, MakeImage

pytestmark = pytest.mark.root

STARTS = 50 * ROUNDS


@contextmanager
def exchanging(programs: Path, one: Path, other: Path) -> Iterator[None]:
    words = [str(programs / "hostile"), "exchange", str(one), str(other)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as racer:
        assert racer.stdout
        assert racer.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            racer.communicate()
        assert racer.returncode == 0


@pytest.mark.parametrize("below", ["", "/file", "/new", "/new/deeper"])
async def test_a_place_that_becomes_a_link(
    engine: Engine, make_image: MakeImage, canary: Canary, programs: Path, tmp_path: Path, below: str
) -> None:
    shared = tmp_path / "shared"
    (shared / "place").mkdir(parents=True)
    (shared / "place/file").touch()
    (shared / "link").symlink_to(canary.folder)
    source = tmp_path / "source"
    source.touch() if below == "/file" else source.mkdir()
    mounts = (f"{shared}:/shared", f"{source}:/shared/place{below}")
    image = make_image()
    outcomes: set[str] = set()
    with exchanging(programs, shared / "place", shared / "link"):
        for _ in range(STARTS):
            try:
                done = await engine.run(image, ["cat", f"{'../' * 16}{canary.secret}"], mounts=mounts)
            except StartFailed as error:
                outcomes.add(error.step)
            else:
                outcomes.add("ran")
                assert b"secret" not in done.stdout
    assert outcomes <= {"ran", "Attach"}
    canary.check()


async def test_a_prepared_place_below_a_shared_folder(
    engine: Engine, make_image: MakeImage, canary: Canary, programs: Path, tmp_path: Path
) -> None:
    """The same for the files that each container has, in an /etc that another one holds."""
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "hosts").touch()
    (etc / "link").symlink_to(canary.secret)
    outcomes: set[str] = set()
    with exchanging(programs, etc / "hosts", etc / "link"):
        for _ in range(STARTS):
            try:
                await engine.run(make_image(), ["sh", "-c", "echo x >> /etc/hosts"], mounts=(f"{etc}:/etc",))
                outcomes.add("ran")
            except StartFailed as error:
                outcomes.add(error.step)
    assert outcomes <= {"ran", "Attach"}
    canary.check()
