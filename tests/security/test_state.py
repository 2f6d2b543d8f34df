"""CVE-2021-41103: folders of layers, containers and sockets that everybody may walk, with the set-uid files in them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pyrt.engine.engine import open_engine
from tests.security import making

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.leakcheck import State

pytestmark = pytest.mark.root

NOBODY = 65534
# Walks where it may, opens what it may; prints all that it could.
WALK = f"""
import os, sys
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
for top in sys.argv[1:]:
    for folder, folders, files in os.walk(top):
        print(folder)
        for name in folders + files:
            path = os.path.join(folder, name)
            for flags in (os.O_RDONLY, os.O_WRONLY):
                try:
                    os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW))
                    print("opened", path)
                except OSError:
                    pass
"""


@pytest.fixture(params=[0o000, 0o777], ids="umask {:o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def seen_by_nobody(*folders: Path) -> list[str]:
    words = [sys.executable, "-I", "-S", "-c", WALK, *map(str, folders)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.usefixtures("umask", "leakcheck")
async def test_nobody_else_walks_in(state: State, base: bytes) -> None:
    """Whatever the umask of the caller is: with 0 nothing is open to others, with 0777 everything works."""
    for folder in (state.root, state.run):
        folder.rmdir()
    open_way(state.root.parent)
    open_folder = state.root.parent / "open"
    open_folder.mkdir()
    (open_folder / "file").touch()
    open_folder.chmod(0o755)
    (open_folder / "file").chmod(0o644)
    async with open_engine(state.root, run_dir=state.run) as engine:
        image = making.add(engine.store, base, making.layer(making.file("bin/su", b"x", 0o4755)))
        async with engine.open_container(image, ["sh", "-c", "cd; echo x > file; sleep 1000"]) as container:
            assert (await container.exec(["cat", "/bin/su"])).stdout == b"x"
            assert (await container.exec(["sh", "-c", "umask; stat -c %a /root/file /etc /"])).exit_code == 0
            # The walk's own control: what it would print of a folder that is open.
            assert f"opened {open_folder / 'file'}" in seen_by_nobody(open_folder)
            assert seen_by_nobody(state.root, state.run) == []
            assert stat.S_IMODE(state.root.stat().st_mode) == 0o700
    assert seen_by_nobody(state.root, state.run) == []


def open_way(folder: Path) -> None:
    """pytest's folders are closed to others themselves."""
    for parent in (folder, *folder.parents):
        if parent.name.startswith("pytest-") or parent == folder:
            parent.chmod(stat.S_IMODE(parent.stat().st_mode) | 0o011)


@pytest.mark.usefixtures("umask", "leakcheck")
async def test_the_umask_of_the_caller_is_not_the_containers(state: State, base: bytes) -> None:
    async with open_engine(state.root, run_dir=state.run) as engine:
        image = making.add(engine.store, base)
        script = ["sh", "-c", "umask; echo > /srv/new; stat -c %a /srv/new / /etc /etc/hosts /dev /dev/shm /tmp"]
        done = await engine.run(image, script)
        async with engine.open_container(image, ["sleep", "1000"]) as container:
            joined = await container.exec(script)
    wanted = [b"0022", b"644", b"755", b"755", b"644", b"755", b"1777", b"1777"]
    assert done.stdout.split() == joined.stdout.split() == wanted
