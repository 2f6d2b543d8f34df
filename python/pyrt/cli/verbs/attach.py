"""``pyrt attach``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.attached import exit_code_of
from pyrt.cli.parser import Help, Parser
from pyrt.cli.tied import add_tie_options, parse_keys, tie
from pyrt.engine.logs import LogOptions

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "attach [OPTIONS] CONTAINER",
    "Ties a detached container to this terminal, and ends with its exit status; it runs on if you leave.",
    (("pyrt attach shell", "ctrl-p ctrl-q leaves it"), ("pyrt attach --no-stdin web", "look on")),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("container", metavar="CONTAINER", help="a name or an id")
    parser.add_argument("--no-stdin", action="store_true", help="look on")
    add_tie_options(parser)


async def main(invocation: Invocation) -> int:
    options, engine = invocation.options, invocation.engine
    parse_keys(options.detach_keys)
    record = engine.inspect(options.container)
    way_in = await engine.open_input(record.id)
    try:
        stream = engine.logs(record.id, LogOptions(follow=True, tail=0))
        if options.no_stdin:
            way_in.close()
    except BaseException:
        way_in.close()
        raise
    status = await tie(
        invocation.console,
        engine,
        record,
        stream,
        None if options.no_stdin else way_in,
        keys=options.detach_keys,
        forwards_signals=options.sig_proxy,
    )
    return 0 if status is None else await exit_code_of(invocation.console, status)
