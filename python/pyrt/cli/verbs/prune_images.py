"""``pyrt image prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli import figures
from pyrt.cli.parser import Help, Parser
from pyrt.cli.pruning import Wanted, add_prune_filter
from pyrt.cli.questions import is_sure
from pyrt.cli.verbs.rmi import lines

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "image prune [OPTIONS]",
    "Removes images without a name, or all that no container uses.",
    (("pyrt image prune -af", "all unused images, without a question"),),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="all that no container uses, not just nameless ones")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    add_prune_filter(parser)


async def main(invocation: Invocation) -> int:
    options, console = invocation.options, invocation.console
    what = "all images without a container" if options.all else "all images without a name"
    if not options.force and not await is_sure(console, f"This will remove {what}."):
        return 0
    keep = await Wanted(options.filter).kept_images(invocation.engine)
    removed = await invocation.engine.prune_images(all=options.all, keep=keep)
    deleted = "".join(f"{line}\n" for line in lines(removed))
    heading = "Deleted images:\n" if deleted else ""
    await console.out(f"{heading}{deleted}Total reclaimed space: {figures.size(removed.reclaimed)}\n")
    return 0
