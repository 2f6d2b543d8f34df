"""``pyrt commit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser, boolean

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "commit [OPTIONS] CONTAINER [NAME[:TAG]]",
    "Makes an image of a container: its own image, and a layer of what it has changed.",
    (
        ("pyrt commit web web:patched", ""),
        ("""pyrt commit -c 'CMD ["nginx"]' -m 'as it was at noon' web snapshot""", ""),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("container", metavar="CONTAINER", help="its name or id")
    parser.add_argument("name", nargs="?", metavar="NAME[:TAG]", help="what the image is to be called")
    parser.add_argument("-a", "--author", default="", metavar="TEXT", help="who has made it")
    parser.add_argument("-c", "--change", action="append", default=[], metavar="INSTRUCTION",
                        help="of a Dockerfile: CMD, ENV, EXPOSE, USER and so on")  # fmt: skip
    parser.add_argument("-m", "--message", default="", metavar="TEXT", help="a remark for its history")
    parser.add_argument("-p", "--pause", type=boolean, nargs="?", const=True, default=True, metavar="BOOL",
                        help="pause the container meanwhile (true)")  # fmt: skip


async def main(invocation: Invocation) -> int:
    options = invocation.options
    image = await invocation.engine.commit_container(
        options.container,
        options.name,
        changes=options.change,
        author=options.author,
        message=options.message,
        pause=options.pause,
    )
    await invocation.console.out(f"{image.id}\n")
    return 0
