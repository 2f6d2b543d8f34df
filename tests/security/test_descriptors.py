"""CVE-2024-21626: a descriptor of the host that is open while a container starts or is joined leads out of it.

Every number is tried for what names a place: the working directory, the command, what interprets a script, and the
loader of a program; each by run and by exec, and where there is a name to resolve, through a symlink of the image too.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from pyrt.errors import PyrtError, StartFailed, UsageError
from pyrt.runtime.options import make_options
from tests.security import making
from tests.security.attempting import outcome
from tests.security.making import ROUNDS, Member, file, link

if TYPE_CHECKING:
    from pathlib import Path

    from pyrt.engine.engine import Engine
    from pyrt.engine.results import Completed
    from pyrt.images.image import Image
    from tests.security.conftest import Canary, MakeImage

    Door = Callable[..., Awaitable[Completed]]

pytestmark = pytest.mark.root

# A start has had at most some twenty descriptors open.
NUMBERS = range(64 if ROUNDS > 1 else 32)
UP = "/.." * 16
AT_ONCE = 6


def way_out(number: int, target: Path) -> str:
    """A path through a descriptor to a place of the host."""
    return f"/proc/self/fd/{number}{UP}{target}"


async def swept(attempt: Callable[[str], Awaitable[None]], ways: Sequence[str]) -> None:
    """Tries all ways, a few at a time."""
    turns = trio.Semaphore(AT_ONCE)

    async def one(way: str) -> None:
        async with turns:
            await attempt(way)

    async with trio.open_nursery() as nursery:
        for way in ways:
            nursery.start_soon(one, way)


@asynccontextmanager
async def opened_door(engine: Engine, image: Image, door: str) -> AsyncIterator[Door]:
    """``run`` of an image, or ``exec`` in a container of it."""
    if door == "run":
        yield partial(engine.run, image)
        return
    async with engine.open_container(image, ["sleep", "1000"]) as container:
        yield container.exec


@pytest.mark.parametrize("door", ["run", "exec"])
async def test_a_working_directory(engine: Engine, make_image: MakeImage, canary: Canary, door: str) -> None:
    links = [link(f"l/{number}", f"/proc/self/fd/{number}") for number in NUMBERS]
    places = [f"{parent}/{number}" for number in NUMBERS for parent in ("/proc/self/fd", "/l")]
    async with opened_door(engine, make_image(*links), door) as process:

        async def attempt(place: str) -> None:
            check_inside(await outcome(process(tell(canary), workdir=place)))

        await swept(attempt, places)


async def test_a_working_directory_of_the_image(engine: Engine, make_image: MakeImage, canary: Canary) -> None:
    for number in NUMBERS[:: 1 if ROUNDS > 1 else 4]:
        image = make_image(WorkingDir=f"/proc/self/fd/{number}")
        check_inside(await outcome(engine.run(image, tell(canary))))


def tell(canary: Canary) -> list[str]:
    """Says where it is, and reads the secret by a path that begins there and not at the root."""
    return ["sh", "-c", f"pwd -P; cat ./{UP}{canary.secret}"]


def check_inside(came: Completed | PyrtError) -> None:
    if isinstance(came, PyrtError):
        assert isinstance(came, StartFailed)
        assert came.step == "ChangeDirectory"
    else:
        assert came.stdout.startswith(b"/")
        assert b"unreachable" not in came.stdout
        assert b"secret" not in came.stdout


def scripts(canary: Canary) -> list[Member]:
    return [file(f"s/{number}", f"#!{way_out(number, canary.program)}\n".encode()) for number in NUMBERS]


def loaded(programs: Path, canary: Canary, folder: Path) -> list[Member]:
    """A dynamic program for each number, whose loader lies behind it."""
    blank = way_out(99, canary.program)
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    program = making.compiled(folder / "empty.c", folder / "empty", f"-Wl,--dynamic-linker={blank}").read_bytes()
    assert program.count(blank.encode()) == 1
    padded = [way_out(number, canary.program).encode().ljust(len(blank), b"\0") for number in NUMBERS]
    return [file(f"p/{n}", program.replace(blank.encode(), text)) for n, text in zip(NUMBERS, padded, strict=True)]


@pytest.mark.parametrize("door", ["run", "exec"])
async def test_a_command(
    engine: Engine, make_image: MakeImage, canary: Canary, programs: Path, tmp_path: Path, door: str
) -> None:
    """Found by this test: commands were resolved while cgroups and layers were open, and the host's programs ran."""
    links = [link(f"c/{number}", way_out(number, canary.program)) for number in NUMBERS]
    image = make_image(*links, *scripts(canary), *loaded(programs, canary, tmp_path))
    direct = [way_out(number, canary.program) for number in NUMBERS]
    commands = [*direct, *(f"/{kind}/{number}" for kind in "csp" for number in NUMBERS)]
    async with opened_door(engine, image, door) as process:

        async def attempt(command: str) -> None:
            came = await outcome(process([command]))
            assert isinstance(came, StartFailed), f"{command} was executed"
            assert came.step == "Exec"

        await swept(attempt, commands)


async def test_a_command_of_a_container_that_was_made_beforehand(
    engine: Engine, make_image: MakeImage, canary: Canary
) -> None:
    """It waits for its streams with the filter loaded, and has nothing else to lead out by then."""
    image = make_image(*scripts(canary))
    for number in NUMBERS[3:16]:
        command = [f"/s/{number}"] if number % 2 else [way_out(number, canary.program)]
        for _ in range(3):
            came = await outcome(engine.run(image, command))
            assert isinstance(came, StartFailed), f"{command} was executed"
            await engine.pool.filled()
    for _ in range(3):
        done = await engine.run(image, LIST)
        await engine.pool.filled()
    assert any(mark.name == "AwaitStdio" for mark in done.timing.marks)
    assert done.stdout.split() == [b"0", b"1", b"2", b"3"]


# ---- what arrives -----------------------------------------------------------------------------------------------


@pytest.fixture
def fifty_open(canary: Canary) -> Iterator[None]:
    """The host program has a folder of the host open fifty times, inheritable."""
    opened = [os.open(canary.path, os.O_RDONLY) for _ in range(50)]
    for descriptor in opened:
        os.set_inheritable(descriptor, True)
    yield
    for descriptor in opened:
        os.close(descriptor)


LIST = ["ls", "-1", "/proc/self/fd/"]


@pytest.mark.usefixtures("fifty_open")
@pytest.mark.parametrize("options", [{}, {"tty": True}, {"init": True}, {"userns": "host"}], ids=str)
async def test_three_descriptors_arrive(engine: Engine, make_image: MakeImage, options: dict[str, Any]) -> None:
    image = make_image()
    done = await engine.run(image, LIST, **options)
    # The fourth is that of the folder which is being listed.
    assert done.stdout.split() == [b"0", b"1", b"2", b"3"]
    async with engine.open_container(image, ["sleep", "1000"], **options) as container:
        done = await container.exec(LIST, tty=options.get("tty", False))
        assert done.stdout.split() == [b"0", b"1", b"2", b"3"]


async def test_a_folder_of_the_host_is_no_standard_input(engine: Engine, make_image: MakeImage, canary: Canary) -> None:
    """/proc/self/fd/0/.. would be the host's, and everything below it."""
    image = make_image()
    async with engine.open_container(image, ["sleep", "1000"]) as container:
        for flags in (os.O_RDONLY, os.O_PATH):
            folder = os.open(canary.path, flags | os.O_DIRECTORY)
            try:
                for number in range(3):
                    stdio = tuple(folder if place == number else 2 for place in range(3))
                    with pytest.raises(UsageError, match="is a directory"):
                        await engine.start(image, make_options(["true"]), stdio=stdio)  # type: ignore[arg-type]
                    with pytest.raises(UsageError, match="is a directory"):
                        await engine.exec(container.id, ["true"], stdio=stdio)  # type: ignore[arg-type]
            finally:
                os.close(folder)
