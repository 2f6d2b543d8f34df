"""``pyrt start``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.attached import exit_code_of
from pyrt.cli.parser import Help, Parser
from pyrt.cli.several import for_each
from pyrt.cli.tied import add_tie_options, parse_keys, tie
from pyrt.errors import UsageError

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "start [OPTIONS] CONTAINER ...",
    "Starts containers that were created, or that have ended.",
    (("pyrt start web db", ""), ("pyrt start -ai shell", "with your terminal")),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER", help="names or ids")
    parser.add_argument("-a", "--attach", action="store_true", help="show what it writes, end as it ends")
    parser.add_argument("-i", "--interactive", action="store_true", help="pass stdin on")
    add_tie_options(parser)


async def main(invocation: Invocation) -> int:
    engine, options = invocation.engine, invocation.options
    if options.attach or options.interactive:
        if len(options.containers) > 1:
            raise UsageError("you can attach to one container at a time", hint="leave -a and -i out")
        return await _attached(invocation)

    async def start(name: str) -> str:
        await engine.launch(name)
        return name

    return await for_each(invocation.console, options.containers, start)


async def _attached(invocation: Invocation) -> int:
    engine, options = invocation.engine, invocation.options
    parse_keys(options.detach_keys)
    record = engine.inspect(options.containers[0])
    stream = engine.next_log(record.id)
    way_in = None
    try:
        record = await engine.launch(record.id)
        if options.interactive:
            way_in = await engine.open_input(record.id)
    except BaseException:
        stream.close()
        raise
    status = await tie(
        invocation.console,
        engine,
        record,
        stream,
        way_in,
        keys=options.detach_keys,
        forwards_signals=options.sig_proxy,
    )
    return 0 if status is None else await exit_code_of(invocation.console, status)
