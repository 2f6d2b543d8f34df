"""``pyrt system prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli import figures
from pyrt.cli.parser import Help, Parser
from pyrt.cli.questions import is_sure
from pyrt.cli.verbs.rmi import lines

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "system prune [OPTIONS]",
    "Removes all containers that do not run, and images without a name.",
    (("pyrt system prune -af", "also every image that is not used, without a question"),),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="all images that no container uses")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")


async def main(invocation: Invocation) -> int:
    options, console, engine = invocation.options, invocation.console, invocation.engine
    images = "every image without a container" if options.all else "every image without a name"
    if not options.force and not await is_sure(
        console, f"This will remove every container that does not run and {images}."
    ):
        return 0
    containers = await engine.prune_containers()
    removed = await engine.prune_images(all=options.all)
    text = ""
    if containers:
        text += "Deleted containers:\n" + "".join(f"{record.id}\n" for record in containers) + "\n"
    if deleted := lines(removed):
        text += "Deleted images:\n" + "".join(f"{line}\n" for line in deleted) + "\n"
    await console.out(f"{text}Total reclaimed space: {figures.size(removed.reclaimed)}\n")
    return 0
