"""The command as a stranger types it: a native client, a server for each test, images by other people's tools."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import client_program, pyrt  # noqa: F401  fixtures, by their names

if TYPE_CHECKING:
    from tests.cli.desk import Desk
    from tests.foreign import Layout


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without credentials, and a machine without rules for registries."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "registries.conf").touch()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(home / "registries.conf"))
    for name in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def box(pyrt: Desk, busybox: Layout) -> Desk:  # noqa: F811
    """With busybox loaded from umoci's layout, called box."""
    pyrt.ok("load", "-i", str(busybox.path), "--name", "box")
    return pyrt


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The beginnings of a root file system: a shell, and room to put things in."""
    root = tmp_path / "tree"
    for folder in ("bin", "etc", "srv"):
        (root / folder).mkdir(parents=True)
    shutil.copy2(shutil.which("busybox") or "/bin/busybox", root / "bin/busybox")
    for applet in ("sh", "cat", "ls", "id", "true", "sleep"):
        (root / "bin" / applet).symlink_to("busybox")
    os.chmod(root, 0o755)
    return root
