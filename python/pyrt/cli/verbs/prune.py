"""``pyrt system prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.cli.pruning import Wanted, add_prune_filter, prune_containers, reclaimed
from pyrt.cli.questions import is_sure
from pyrt.cli.verbs.rmi import lines

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "system prune [OPTIONS]",
    "Removes all containers that do not run, and images without a name.",
    (
        ("pyrt system prune -af", "also every image that is not used, without a question"),
        ("pyrt system prune -f --filter until=24h", "what was made more than a day ago"),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="all images that no container uses")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    add_prune_filter(parser)


async def main(invocation: Invocation) -> int:
    options, console, engine = invocation.options, invocation.console, invocation.engine
    wanted = Wanted(options.filter)
    images = "every image without a container" if options.all else "every image without a name"
    if not options.force and not await is_sure(
        console, f"This will remove every container that does not run and {images}."
    ):
        return 0
    text, size = await prune_containers(engine, wanted)
    removed = await engine.prune_images(all=options.all, keep=await wanted.kept_images(engine))
    if deleted := lines(removed):
        text += "Deleted images:\n" + "".join(f"{line}\n" for line in deleted) + "\n"
    await console.out(text + reclaimed(size + removed.reclaimed))
    return 0
