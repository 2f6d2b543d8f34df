"""``pyrt diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pyrt.cli.parser import Help, Parser
from pyrt.cli.template import compile_template

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "diff [OPTIONS] CONTAINER",
    "Lists what a container has changed of its image's files: A for added, C for changed, D for deleted.",
    (("pyrt diff web", ""), ("pyrt diff --format '{{.Path}}' web", "")),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("container", metavar="CONTAINER", help="its name or id")
    parser.add_argument("--format", metavar="TEMPLATE", help="json, or a Go template of .Kind and .Path")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="a line of JSON each")


async def main(invocation: Invocation) -> int:
    form = invocation.options.format or "{{.Kind}} {{.Path}}"
    rows = [
        {"Kind": each.kind, "Path": each.path} for each in await invocation.engine.diff(invocation.options.container)
    ]
    if form == "json":
        text = "".join(msgspec.json.encode(row).decode() + "\n" for row in rows)
    else:
        line = compile_template(form)
        text = "".join(line(row) + "\n" for row in rows)
    await invocation.console.out(text)
    return 0
