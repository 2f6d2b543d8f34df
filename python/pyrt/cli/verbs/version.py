"""``pyrt version``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from pyrt.cli import VERSION
from pyrt.cli.parser import Help, Parser
from pyrt.cli.protocol import PROTOCOL

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help("version [--json]", "Prints the version of pyrt and of what it runs on.")


def arguments(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")


async def main(invocation: Invocation) -> int:
    python = ".".join(map(str, sys.version_info[:3]))
    facts = {"pyrt": VERSION, "protocol": PROTOCOL, "python": python}
    if invocation.options.json:
        await invocation.console.out(msgspec.json.encode(facts).decode() + "\n")
    else:
        await invocation.console.out(f"pyrt {VERSION} (Python {python})\n")
    return 0
