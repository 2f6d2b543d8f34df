"""``pyrt tag``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "tag IMAGE NAME[:TAG]",
    "Gives an image another name. An image that has had this name loses it.",
    (("pyrt tag debian:12 localhost:5000/base", ""),),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("source", metavar="IMAGE", help="a name or an id")
    parser.add_argument("target", metavar="NAME[:TAG]", help="the name that it gets besides")


async def main(invocation: Invocation) -> int:
    options, engine = invocation.options, invocation.engine
    await engine.tag(engine.local_name(options.source, invocation.console.environment), options.target)
    return 0
