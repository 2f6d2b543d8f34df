"""``pyrt restart``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.cli.several import for_each

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "restart [OPTIONS] CONTAINER ...",
    "Stops containers, if they run, and starts them again.",
    (("pyrt restart -t 2 web", ""),),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER", help="names or ids")
    parser.add_argument("-t", "--time", "--timeout", type=float, metavar="SECONDS", help="until it is killed")
    parser.add_argument("-s", "--signal", metavar="SIGNAL", help="another signal than its own")


async def main(invocation: Invocation) -> int:
    options = invocation.options

    async def restart(name: str) -> str:
        await invocation.engine.restart(name, options.time, signal=options.signal)
        return name

    return await for_each(invocation.console, options.containers, restart)
