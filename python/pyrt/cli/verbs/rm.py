"""``pyrt rm``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.cli.several import for_each
from pyrt.errors import ContainerNotFound

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "rm [OPTIONS] CONTAINER ...",
    "Removes containers, with all that they have written.",
    (("pyrt rm -f web", "also if it runs"), ("pyrt rm $(pyrt ps -aq -f status=exited)", "all that have ended")),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER", help="names or ids")
    parser.add_argument(
        "-f", "--force", action="store_true", help="kill those that run; no error for one that is not there"
    )
    parser.add_argument("-v", "--volumes", action="store_true", help="as without: pyrt keeps no anonymous volumes")


async def main(invocation: Invocation) -> int:
    force = invocation.options.force

    async def remove(name: str) -> str:
        try:
            await invocation.engine.remove(name, force=force)
        except ContainerNotFound:
            if not force:
                raise
            return ""
        return name

    return await for_each(invocation.console, invocation.options.containers, remove)
