"""``pyrt pause``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.cli.several import for_each

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "pause CONTAINER ...",
    "Freezes every process of containers, until they are unpaused.",
    (("pyrt pause web", ""), ("pyrt pause $(pyrt ps -q)", "all that run")),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER", help="names or ids")


async def main(invocation: Invocation) -> int:
    async def pause(name: str) -> str:
        await invocation.engine.pause(name)
        return name

    return await for_each(invocation.console, invocation.options.containers, pause)
