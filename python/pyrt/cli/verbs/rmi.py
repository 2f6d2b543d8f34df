"""``pyrt rmi``, ``pyrt image rm``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.cli.several import for_each
from pyrt.errors import ImageNotFound

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation
    from pyrt.images.image import Removed

HELP = Help(
    "rmi [OPTIONS] IMAGE ...",
    "Takes names away from images; an image without a name goes, with the layers that no other image has.",
    (("pyrt rmi debian:12", ""), ("pyrt rmi -f 3f9c", "an image with all its names")),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="names or ids")
    parser.add_argument("-f", "--force", action="store_true", help="also with several names, or if a container uses it")


async def main(invocation: Invocation) -> int:
    async def remove(name: str) -> str:
        engine = invocation.engine
        try:
            meant = engine.local_name(name, invocation.console.environment)
            removed = await engine.remove_image(meant, force=invocation.options.force)
        except ImageNotFound:
            if not invocation.options.force:
                raise
            return ""
        return "\n".join(lines(removed))

    return await for_each(invocation.console, invocation.options.images, remove)


def lines(removed: Removed) -> list[str]:
    """What was removed, as Docker says it."""
    return [
        *(f"Untagged: {name}" for name in removed.untagged),
        *(f"Deleted: {image}" for image in removed.deleted),
        *(f"Deleted: {layer}" for layer in removed.layers),
    ]
