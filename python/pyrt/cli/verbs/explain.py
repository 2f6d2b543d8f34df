"""``pyrt explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pyrt.cli.options import add_run_options, run_options_of
from pyrt.cli.parser import Help, Parser
from pyrt.cli.steps import step_table

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "explain [OPTIONS] IMAGE [COMMAND] [ARG ...]",
    "Shows every step that `pyrt run` with the same options would take to make this container, and takes none.",
    (
        ("pyrt explain host", ""),
        ("pyrt explain --read-only -m 64m debian:12 bash", "what these options change"),
        ("pyrt explain --json debian:12", "a line of JSON each"),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="one that is here, or host")
    parser.add_command("instead of the image's own")
    parser.add_argument("--json", action="store_true", help="a line of JSON each")
    add_run_options(parser)


async def main(invocation: Invocation) -> int:
    options, console = invocation.options, invocation.console
    image = invocation.engine.local_name(options.image, console.environment)
    steps = invocation.engine.explain(image, await run_options_of(options, console))
    if options.json:
        rows = [{"part": step.part, "index": step.index, "name": step.name, "text": step.text} for step in steps]
        await console.out("".join(msgspec.json.encode(row).decode() + "\n" for row in rows))
    else:
        await console.out(step_table(steps, colour=console.has_colour()))
    return 0
