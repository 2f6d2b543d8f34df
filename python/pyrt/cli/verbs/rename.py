"""``pyrt rename``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help("rename CONTAINER NAME", "Gives a container another name.", (("pyrt rename web old-web", ""),))


def arguments(parser: Parser) -> None:
    parser.add_argument("container", metavar="CONTAINER", help="its name or id")
    parser.add_argument("name", metavar="NAME", help="what it is to be called")


async def main(invocation: Invocation) -> int:
    await invocation.engine.rename(invocation.options.container, invocation.options.name.removeprefix("/"))
    return 0
