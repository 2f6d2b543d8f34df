"""Who a container runs as, and with which rights: what an image says of it is an enemy's text.

CVE-2022-24769, -29162: inheritable capabilities. CVE-2022-36109: groups without the primary one. CVE-2024-40635,
2026-30892, CRI-O 2022-4318: numbers that wrap, files without end, a home of several lines. What a USER may say is
tested in ``tests/runtime/test_user.py``; here it goes through an image and a kernel.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import trio

from pyrt.errors import InvalidImage, PyrtError, UsageError
from tests.security import making
from tests.security.attempting import outcome
from tests.security.making import PASSWD, Member, device, fifo, file, folder, link
from tests.security.memory import Peak

if TYPE_CHECKING:
    from pathlib import Path

    from pyrt.engine.engine import Engine
    from tests.security.conftest import Canary, MakeImage

pytestmark = pytest.mark.root


def field(report: dict[str, Any], name: str) -> list[str]:
    lines: list[str] = report["status"].splitlines()
    return next(line for line in lines if line.startswith(f"{name}:")).split()[1:]


USERS = {
    "root": ("", ["0"]),
    "alice": ("alice", ["44", "1000"]),
    "numbers": ("5000:44", ["44"]),
    "a group": ("0:7", ["7"]),
}


@pytest.mark.parametrize("who", USERS)
@pytest.mark.parametrize("options", [{}, {"userns": "host"}, {"cap_add": ("ALL",)}], ids=str)
async def test_capabilities_and_groups(
    engine: Engine, make_image: MakeImage, who: str, options: dict[str, Any]
) -> None:
    user, groups = USERS[who]
    image = make_image(User=user)
    done = await engine.run(image, ["probe"], **options)
    async with engine.open_container(make_image(), ["sleep", "1000"], **options) as container:
        joined = await container.exec(["probe"], user=user)
    for one in (done, joined):
        report = json.loads(one.stdout)
        assert field(report, "CapInh") == field(report, "CapAmb") == ["0" * 16]
        if field(report, "Uid")[0] != "0":
            assert field(report, "CapEff") == field(report, "CapPrm") == ["0" * 16]
        assert sorted(field(report, "Groups"), key=int) == groups
        assert field(report, "Gid")[0] in field(report, "Groups")
        assert field(report, "NoNewPrivs") == ["1"]


async def test_a_file_that_is_closed_to_the_group_is_closed(engine: Engine, make_image: MakeImage) -> None:
    """CVE-2022-36109: who is not in their own group passes as one of the others."""
    secret = file("srv/secret", b"not for video", 0o707)
    secret[0].gid = 44
    image = make_image(secret)
    async with engine.open_container(image, ["sleep", "1000"]) as container:
        for user in ("alice", "5000:44", "5000:video"):
            for done in (
                await engine.run(image, ["cat", "/srv/secret"], user=user),
                await container.exec(["cat", "/srv/secret"], user=user),
            ):
                assert (done.stdout, done.exit_code) == (b"", 1)
        assert (await container.exec(["cat", "/srv/secret"], user="5000:5000")).stdout == b"not for video"


# ---- /etc/passwd and /etc/group ---------------------------------------------------------------------------------


def traps(canary: Canary) -> dict[str, Member]:
    return {
        "a link to the host": link("etc/passwd", str(canary.secret)),
        "a link to a process": link("etc/passwd", "/proc/self/environ"),
        "a link round": link("etc/passwd", "passwd"),
        "a fifo": fifo("etc/passwd"),
        "/dev/zero": device("etc/passwd", 1, 5),
        "a link to /dev/zero": link("etc/passwd", "/dev/zero"),
        "a folder": folder("etc/passwd"),
        "a line without end": file("etc/passwd", PASSWD + b"a" * (8 << 20)),
        "zeros without end": file("etc/passwd", PASSWD + bytes(8 << 20)),
    }


TRAPS = [
    "a link to the host",
    "a link to a process",
    "a link round",
    "a fifo",
    "/dev/zero",
    "a link to /dev/zero",
    "a folder",
    "a line without end",
    "zeros without end",
]


@pytest.mark.parametrize("trap", TRAPS)
async def test_a_passwd_that_is_a_trap(engine: Engine, make_image: MakeImage, canary: Canary, trap: str) -> None:
    """A name can't be found, quickly, and never becomes root; a number needs no file."""
    canary.secret.write_text("mallory:x:0:0::/:/bin/sh\n")
    canary.look()
    image = make_image(traps(canary)[trap])
    with trio.fail_after(20):
        for name in ("mallory", "alice"):
            with pytest.raises((UsageError, InvalidImage)):
                await engine.run(image, ["true"], user=name)
        # Not id, which would look into the file itself.
        done = await outcome(engine.run(image, ["stat", "-c", "%u", "/proc/self/"], user="1234"))
    if isinstance(done, PyrtError):
        assert "/etc/passwd" in done.message
    else:
        assert done.stdout == b"1234\n"


async def test_a_passwd_of_a_gibibyte_takes_neither_time_nor_memory(
    engine: Engine, base: bytes, tmp_path: Path
) -> None:
    image = making.add(engine.store, base, sparse_passwd(tmp_path))
    before = Peak()
    with trio.fail_after(20), pytest.raises((UsageError, InvalidImage)):
        await engine.run(image, ["id"], user="alice")
    assert before.grown() < 16 << 20


def sparse_passwd(folder: Path) -> bytes:
    """A layer of GNU tar's, of 10 KiB, with an /etc/passwd that is all hole."""
    (folder / "etc").mkdir()
    with (folder / "etc/passwd").open("wb") as file:
        file.truncate(1 << 30)
    words = ["tar", "-cSf", "-", "--format=gnu", "-C", str(folder), "etc/passwd"]
    return subprocess.run(words, check=True, capture_output=True).stdout


@pytest.mark.parametrize("home", ["/x\\nroot:x:0:0::/:", "/a\r/b", "/\x1b[2J", "relative", "/" + "x" * 5000, "/\xff"])
async def test_a_home_is_one_line(engine: Engine, make_image: MakeImage, home: str) -> None:
    passwd = b"eve:x:1000:1000::" + home.encode("latin1") + b":/bin/sh\n"
    done = await engine.run(make_image(file("etc/passwd", passwd), User="eve"), ["sh", "-c", 'echo "$HOME"; id -u'])
    lines = done.stdout.splitlines()
    assert lines[1] == b"1000"
    assert len(lines) == 2
    assert lines[0] in {b"/", b"/x\\nroot"}


USER_NUMBERS = [
    "-1",
    "2147483648",
    "4294967295",
    "4294967296",
    "18446744073709551616",
    "1:4294967295",
    "65536",
    "0:65536",
]


@pytest.mark.parametrize("user", USER_NUMBERS)
async def test_numbers_do_not_wrap(engine: Engine, make_image: MakeImage, user: str) -> None:
    with pytest.raises(InvalidImage):
        await engine.run(make_image(User=user), ["id"])
    with pytest.raises(UsageError):
        await engine.run(make_image(), ["id"], user=user)
    async with engine.open_container(make_image(), ["sleep", "1000"]) as container:
        with pytest.raises(UsageError):
            await container.exec(["id"], user=user)
