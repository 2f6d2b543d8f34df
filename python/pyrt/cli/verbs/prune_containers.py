"""``pyrt container prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.cli.pruning import Wanted, add_prune_filter, prune_containers, reclaimed
from pyrt.cli.questions import is_sure

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "container prune [OPTIONS]",
    "Removes all containers that do not run.",
    (
        ("pyrt container prune -f", "without a question"),
        ("pyrt container prune --filter until=24h", "those that were made more than a day ago"),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    add_prune_filter(parser)


async def main(invocation: Invocation) -> int:
    options, console = invocation.options, invocation.console
    wanted = Wanted(options.filter)
    if not options.force and not await is_sure(console, "This will remove every container that does not run."):
        return 0
    text, size = await prune_containers(invocation.engine, wanted)
    await console.out(text + reclaimed(size))
    return 0
