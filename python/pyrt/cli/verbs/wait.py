"""``pyrt wait``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.cli.several import for_each

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "wait CONTAINER ...",
    "Waits until containers have ended, and prints their exit statuses.",
    (("pyrt wait job", ""),),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER", help="names or ids")


async def main(invocation: Invocation) -> int:
    async def wait(name: str) -> str:
        return str((await invocation.engine.wait(name)).exit_code)

    return await for_each(invocation.console, invocation.options.containers, wait)
