"""``pyrt kill``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.cli.several import for_each

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "kill [OPTIONS] CONTAINER ...",
    "Sends the first process of containers a signal, and does not wait.",
    (
        ("pyrt kill web", "ends it at once"),
        ("pyrt kill -s HUP web", "has it read its configuration again, if it does so"),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER", help="names or ids")
    parser.add_argument("-s", "--signal", default="KILL", metavar="SIGNAL", help="a name or a number (KILL)")


async def main(invocation: Invocation) -> int:
    async def kill(name: str) -> str:
        await invocation.engine.kill(name, invocation.options.signal)
        return name

    return await for_each(invocation.console, invocation.options.containers, kill)
