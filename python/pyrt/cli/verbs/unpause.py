"""``pyrt unpause``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.cli.several import for_each

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "unpause CONTAINER ...",
    "Lets the processes of paused containers go on.",
    (("pyrt unpause web", ""), ("pyrt unpause $(pyrt ps -q -f status=paused)", "all that are paused")),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER", help="names or ids")


async def main(invocation: Invocation) -> int:
    async def unpause(name: str) -> str:
        await invocation.engine.unpause(name)
        return name

    return await for_each(invocation.console, invocation.options.containers, unpause)
