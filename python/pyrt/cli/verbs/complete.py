"""``pyrt __complete KIND``: names that exist just now, one a line, for the scripts of ``completion``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyrt.cli.parser import Help, Parser
from pyrt.engine.states import LIVE, State
from pyrt.images.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyrt.cli.verbs import Invocation
    from pyrt.engine.engine import Engine

HELP = Help("__complete KIND", "Prints names that exist just now.")


def arguments(parser: Parser) -> None:
    parser.add_argument("kind", choices=_KINDS, help="what kind of names")


async def main(invocation: Invocation) -> int:
    names = await _KINDS[invocation.options.kind](invocation.engine)
    await invocation.console.out("".join(f"{name}\n" for name in names))
    return 0


async def _containers(engine: Engine) -> list[str]:
    return [record.name for record in engine.containers() if record.state is not State.REMOVING]


async def _running(engine: Engine) -> list[str]:
    return [record.name for record in engine.containers() if record.state in LIVE]


async def _images(engine: Engine) -> list[str]:
    return [Reference.parse(name).familiar() for image in await engine.images() for name in image.names]


async def _runnable(engine: Engine) -> list[str]:
    return ["host", *await _images(engine)]


async def _things(engine: Engine) -> list[str]:
    return [*await _containers(engine), *await _images(engine)]


async def _files(engine: Engine) -> list[str]:
    """What cp takes of a container begins so."""
    return [f"{name}:" for name in await _containers(engine)]


_KINDS: Final[dict[str, Callable[[Engine], Awaitable[list[str]]]]] = {
    "containers": _containers,
    "running": _running,
    "images": _images,
    "files": _files,
    "runnable": _runnable,
    "things": _things,
}
