"""``pyrt logs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.console import STDERR, STDOUT
from pyrt.cli.moments import parse_moment
from pyrt.cli.parser import Help, Parser
from pyrt.engine.logs import LogOptions
from pyrt.errors import UsageError

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "logs [OPTIONS] CONTAINER",
    "Shows what a detached container has written.",
    (
        ("pyrt logs -f web", "and what it writes until it ends"),
        ("pyrt logs -n 20 -t web", "the last 20 lines, with their times"),
        ("pyrt logs --since 5m web", "of the last five minutes"),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("container", metavar="CONTAINER", help="a name or an id")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until it ends")
    parser.add_argument("-t", "--timestamps", action="store_true", help="the time before each line")
    parser.add_argument("-n", "--tail", default="all", metavar="LINES", help="the last so many, or all")
    parser.add_argument("--since", default="", metavar="TIME", help="5m, 2026-11-24T13:00:00Z, or seconds since 1970")
    parser.add_argument("--until", default="", metavar="TIME", help="the same")


async def main(invocation: Invocation) -> int:
    options, console = invocation.options, invocation.console
    if options.tail != "all" and not options.tail.lstrip("-").isdecimal():
        raise UsageError(f"--tail {options.tail} is no number of lines", hint="a number, or all")
    tail = None if options.tail == "all" or int(options.tail) < 0 else int(options.tail)
    wanted = LogOptions(
        follow=options.follow,
        since=_moment(options.since),
        until=_moment(options.until),
        tail=tail,
        times=options.timestamps,
    )
    stream = invocation.engine.logs(options.container, wanted)
    try:
        async for text in stream:
            await console.write(STDERR if text.stderr else STDOUT, text.data)
    finally:
        stream.close()
    return 0


def _moment(text: str) -> int:
    """Unix time in nanoseconds; 0 for none."""
    if not text:
        return 0
    found = parse_moment(text)
    if found.time is None:
        raise UsageError(f"{text} is no time", hint="5m, 2026-11-24T13:00:00Z, or seconds since 1970")
    return found.time
