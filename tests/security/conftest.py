"""What the attacks need: an engine, the programs that run inside, and a canary on the host that nothing may touch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.conftest import engine  # noqa: F401  a fixture, by its name
from tests.security import making

if TYPE_CHECKING:
    from pyrt.engine.engine import Engine
    from pyrt.images.image import Image

    MakeImage = Callable[..., Image]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the compiled programs, static: they run in any image."""
    folder = tmp_path_factory.mktemp("programs")
    for name in making.PROGRAMS:
        making.compiled(making.HERE / f"{name}.c", folder / name, "-static")
    return folder


@pytest.fixture(scope="session")
def base(programs: Path) -> bytes:
    """The lowest layer of every image here."""
    return making.base_layer(programs)


@pytest.fixture
def make_image(engine: Engine, base: bytes) -> MakeImage:  # noqa: F811
    """Makes an image of the base layer and others on it, with a configuration."""

    def make(*members: making.Member, **config: Any) -> Image:
        layers = (base, making.layer(*members)) if members else (base,)
        return making.add(engine.store, *layers, **config)

    return make


class Canary:
    """A folder of the host that everybody may walk, with a secret and a program; whoever escapes would find it."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.path = folder
        self.secret = folder / "secret"
        self.program = folder / "program"
        self.folder = folder / "folder"
        folder.chmod(0o755)
        self.secret.write_text("the secret of the host")
        self.folder.mkdir()
        self.folder.chmod(0o777)
        (self.folder / "file").write_text("untouched")
        shutil.copy(program, self.program)
        os.setxattr(self.secret, "user.canary", b"1")
        self.look()

    def look(self) -> None:
        """What it is now is what it shall stay."""
        self._before = self._picture()

    def _picture(self) -> list[tuple[object, ...]]:
        return [_of(path) for path in sorted([self.path, *self.path.rglob("*")])]

    def check(self) -> None:
        """Nothing of it has changed, and nothing is in it that was not."""
        assert self._picture() == self._before


def _of(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    content = path.read_bytes() if path.is_file() else b""
    return path, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, attributes, content


@pytest.fixture
def canary(programs: Path) -> Iterator[Canary]:
    """Is looked at again when the test is over. Not below the test's own folder, which only root may enter."""
    with tempfile.TemporaryDirectory(prefix="pyrt-canary-", dir="/tmp") as folder:
        canary = Canary(Path(folder), programs / "hostile")
        yield canary
        canary.check()
