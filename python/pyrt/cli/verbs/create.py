"""``pyrt create``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pyrt.cli.lasting import lasting_of
from pyrt.cli.options import run_options_of
from pyrt.cli.parser import Help, Parser
from pyrt.cli.pulling import find_or_pull
from pyrt.cli.verbs import run

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "create [OPTIONS] IMAGE [COMMAND] [ARG ...]",
    "Makes a container and prints its id; `pyrt start` starts it.",
    (("pyrt create --name web -v ./www:/www IMAGE", ""),),
)


def arguments(parser: Parser) -> None:
    run.common_arguments(parser)


async def main(invocation: Invocation) -> int:
    options, console, engine = invocation.options, invocation.console, invocation.engine
    run.streams_of(options)
    run_options = await run_options_of(options, console)
    cidfile = run.reserve(console.path(options.cidfile)) if options.cidfile else None
    image = await find_or_pull(
        console, engine, options.image, when=options.pull, platform=options.platform, quiet=options.quiet
    )
    # Whoever starts it with -i gives it all of its input.
    lasting = msgspec.structs.replace(lasting_of(options, image), stdin_once=options.interactive)
    record = await engine.create(image, run_options, lasting, keep=not options.rm, asked=options.image)
    if cidfile is not None:
        run.write_id(cidfile, record.id)
    await console.out(f"{record.id}\n")
    return 0
