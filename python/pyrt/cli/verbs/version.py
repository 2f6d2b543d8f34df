"""``pyrt version``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from pyrt.cli import VERSION
from pyrt.cli.parser import Help, Parser
from pyrt.cli.protocol import PROTOCOL
from pyrt.cli.template import compile_template
from pyrt.images import platform

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "version [OPTIONS]",
    "Prints the version of pyrt and of what it runs on.",
    (("pyrt version --format '{{.Server.Version}}'", ""),),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("-f", "--format", metavar="TEMPLATE", help="json, or a Go template: '{{.Server.Version}}'")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="as JSON")


async def main(invocation: Invocation) -> int:
    python = ".".join(map(str, sys.version_info[:3]))
    facts = {"pyrt": VERSION, "protocol": PROTOCOL, "python": python}
    form = invocation.options.format
    if form == "json":
        await invocation.console.out(msgspec.json.encode(facts).decode() + "\n")
    elif form:
        # As scripts ask Docker: client and server are one program.
        both = {"Version": VERSION, "Os": "linux", "Arch": platform.host().architecture}
        await invocation.console.out(compile_template(form)({**facts, "Client": both, "Server": both}) + "\n")
    else:
        await invocation.console.out(f"pyrt {VERSION} (Python {python})\n")
    return 0
