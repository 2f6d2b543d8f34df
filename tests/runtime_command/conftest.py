"""The command `pyrt-runtime` as the wheel installs it, and bundles for it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.runtime_command.command import Bundle, Runtime
from tests.runtime_command.plain import PlainUser
from tests.services import SHORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.leakcheck import Oracle


@pytest.fixture(scope="session")
def busybox_rootfs(busybox_rootfs: Path) -> Iterator[Path]:
    """A copy: places of mounts are made in it, and others compare theirs with what is in an image.

    Where a container's own users may go as well: runc looks for it when it is one of them.
    """
    with tempfile.TemporaryDirectory(prefix="pyrt-rootfs-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(shutil.copytree(busybox_rootfs, Path(folder, "rootfs"), symlinks=True))


@pytest.fixture(scope="session")
def program() -> Path:
    """The installed file."""
    found = shutil.which("pyrt-runtime", path=f"{Path(sys.executable).parent}")
    assert found is not None, "the wheel installs pyrt-runtime beside pyrt: run make install"
    return Path(found)


@pytest.fixture
def runtime(program: Path, tmp_path: Path, leakcheck: Oracle) -> Iterator[Runtime]:
    """The command with a state directory of its own; what a test has not deleted must be deletable by force."""
    runtime = Runtime([str(program)], tmp_path / "oci", leakcheck)
    yield runtime
    for folder in runtime.root.glob("*"):
        runtime.ok("delete", "--force", folder.name)


@pytest.fixture
def bundle(busybox_rootfs: Path, tmp_path: Path) -> Bundle:
    """A bundle of busybox, read-only, that runs `true`."""
    return Bundle(tmp_path / "bundle", busybox_rootfs)


@pytest.fixture
def name(leakcheck: Oracle) -> str:
    """An id whose cgroups the oracle knows to be the test's."""
    name = f"oci-{uuid.uuid4().hex[:12]}"
    leakcheck.owns(name)
    return name


@pytest.fixture
def plain_user(leakcheck: Oracle) -> Iterator[PlainUser]:
    """A user without rights, with a home."""
    with tempfile.TemporaryDirectory(prefix="plain-", dir=SHORT) as name:
        yield PlainUser(Path(name))
