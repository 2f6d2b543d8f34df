"""CVE-2019-5736: the container writes the program that starts it, through /proc/<pid>/exe and its kin.

And CVE-2016-9962: it attaches to whoever joins it, and takes what that still holds of the host.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyrt import _native
from pyrt.errors import PyrtError
from tests.security.attempting import outcome
from tests.security.making import ROUNDS, file, link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrt.engine.container import Container
    from pyrt.engine.engine import Engine
    from tests.security.conftest import MakeImage

pytestmark = pytest.mark.root

LEAST = 20 * ROUNDS
MOST = 20 * LEAST
RIGHTS = [
    {},
    {"cap_add": ("SYS_PTRACE",)},
    {"privileged": True},
    {"userns": "host"},
]


def ours() -> list[Path]:
    """Every file that is executed or mapped when pyrt starts a container."""
    command = shutil.which("pyrt", path=str(Path(sys.executable).parent))
    assert command
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    libraries = [Path(name) for name in mapped if "libpython" in name or "libc.so" in name]
    return [Path(sys.executable).resolve(), Path(_native.__file__), Path(command), *libraries]


@pytest.fixture(autouse=True)
def _nothing_of_ours_is_changed() -> Iterator[None]:
    before = [hashlib.sha256(path.read_bytes()).digest() for path in ours()]
    yield
    assert [hashlib.sha256(path.read_bytes()).digest() for path in ours()] == before


async def findings(container: Container, witness: str) -> dict[str, set[str]]:
    """What the loop in a container finds while others join it, by kind. ``witness``: a line that shows it met one."""
    text = b""
    while b"ready\n" not in text:
        text += await container.stdout.receive_some()
    for number in range(MOST):
        assert (await container.exec(["true"])).exit_code == 0
        text += container.stdout.read_now(1 << 20) or b""
        if number >= LEAST and witness.encode() in text:
            break
    await container.stdin.aclose()
    async for piece in container.stdout:
        text += piece
    found: dict[str, set[str]] = {}
    for line in text.decode().splitlines():
        kind, _, target = line.partition(" ")
        found.setdefault(kind, set()).add(target)
    return found


@pytest.mark.parametrize("rights", RIGHTS, ids=str)
async def test_what_joins_shows_nothing_and_takes_nothing(
    engine: Engine, make_image: MakeImage, rights: dict[str, Any]
) -> None:
    async with engine.open_container(make_image(), ["hostile", "scan"], **rights) as container:
        found = await findings(container, "denied exe")
    assert found["denied"] >= {"exe", "fd"}, "the loop never met a process on its way in"
    programs = {"/bin/busybox"}
    assert found.get("exe", set()) <= programs
    assert found.get("exe-written", set()) <= programs
    assert found.get("reopened", set()) <= programs | {target for target in found["fd"] if target.startswith("pipe:")}
    assert "maps" not in found, "the memory of the static program could be read"
    assert found.get("root", set()) | found.get("cwd", set()) <= {"/"}
    assert all(target.startswith(("pipe:", "/proc", "/dev/null")) for target in found.get("fd", set())), found["fd"]


@pytest.mark.parametrize("rights", RIGHTS, ids=str)
async def test_what_joins_is_not_to_be_traced(engine: Engine, make_image: MakeImage, rights: dict[str, Any]) -> None:
    async with engine.open_container(make_image(), ["hostile", "trace"], **rights) as container:
        found = await findings(container, "refused attach")
    assert "refused" in found, "the loop never met a process on its way in"
    assert found.get("caught", set()) <= {"/bin/busybox"}
    assert found.get("memory", set()) <= {"/bin/busybox"}


@pytest.mark.parametrize("door", ["run", "exec"])
async def test_the_runtime_as_a_command(engine: Engine, make_image: MakeImage, door: str) -> None:
    """What starts a container executes itself once more, inside: it is a sealed copy, and knows nothing."""
    script = b"#!/proc/self/exe\n"
    image = make_image(file("bin/script", script), link("bin/itself", "/proc/self/exe"))
    async with engine.open_container(image, ["sleep", "1000"]) as container:
        for command in (["/bin/script"], ["/bin/itself"], ["/proc/self/exe"], ["/proc/1/exe"]):
            attempt = engine.run(image, command) if door == "run" else container.exec(command)
            came = await outcome(attempt)
            assert isinstance(came, PyrtError) or came.exit_code != 0
