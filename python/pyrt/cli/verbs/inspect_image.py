"""``pyrt image inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.documents import image_document, show
from pyrt.cli.parser import Help, Parser

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "image inspect [OPTIONS] IMAGE ...",
    "Shows all that is known of images, as JSON.",
    (("pyrt image inspect -f '{{json .Config.Env}}' debian:12", ""),),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="names or ids")
    parser.add_argument("-f", "--format", metavar="TEMPLATE", help="a Go template: '{{.Id}}', '{{json .}}'")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="a line of JSON each")


async def main(invocation: Invocation) -> int:
    environ = invocation.console.environment
    images = [invocation.engine.find_image(name, environ=environ) for name in invocation.options.images]
    documents = [image_document(image) for image in images]
    await invocation.console.out(show(documents, invocation.options.format))
    return 0
