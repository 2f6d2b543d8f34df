"""``pyrt stop``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.cli.several import for_each

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "stop [OPTIONS] CONTAINER ...",
    "Sends containers their stop signal, kills those that have not ended in time, and waits for the end.",
    (("pyrt stop -t 2 web", ""), ("pyrt stop $(pyrt ps -q)", "all that run")),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER", help="names or ids")
    parser.add_argument(
        "-t", "--time", "--timeout", type=float, metavar="SECONDS", help="until it is killed (--stop-timeout, 10)"
    )
    parser.add_argument("-s", "--signal", metavar="SIGNAL", help="another signal than its own")


async def main(invocation: Invocation) -> int:
    engine, options = invocation.engine, invocation.options

    async def stop(name: str) -> str:
        await engine.stop(name, options.time, signal=options.signal)
        return name

    return await for_each(invocation.console, options.containers, stop)
