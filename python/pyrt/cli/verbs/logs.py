"""``pyrt logs``."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

from pyrt.cli.console import STDERR, STDOUT
from pyrt.cli.moments import parse_moment
from pyrt.cli.parser import Help, Parser
from pyrt.engine.configuration import config_of
from pyrt.engine.logs import LogOptions
from pyrt.engine.recipe import options_of
from pyrt.errors import ImageNotFound, UsageError

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation
    from pyrt.engine.engine import Engine

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
    parser.add_argument("--details", action="store_true", help="what --log-opt labels and env name, before each line")
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
        details=_details(invocation.engine, options.container) if options.details else "",
    )
    stream = invocation.engine.logs(options.container, wanted)
    try:
        async for text in stream:
            await console.write(STDERR if text.stderr else STDOUT, text.data)
    finally:
        stream.close()
    return 0


def _details(engine: Engine, container: str) -> str:
    """As Docker writes them: "app=web,NAME=value "."""
    record = engine.inspect(container)
    if record.lasting is None:
        return ""
    log, env = record.lasting.log, dict(options_of(record).env)
    with suppress(ImageNotFound):
        image = engine.find_image(record.image_id).config
        env = dict(line.partition("=")[::2] for line in config_of(image, record).env)
    found = {name: record.labels[name] for name in log.labels if name in record.labels}
    found |= {name: env[name] for name in log.env if name in env}
    return ",".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in sorted(found.items())) + " "


def _moment(text: str) -> int:
    """Unix time in nanoseconds; 0 for none."""
    if not text:
        return 0
    found = parse_moment(text)
    if found.time is None:
        raise UsageError(f"{text} is no time", hint="5m, 2026-11-24T13:00:00Z, or seconds since 1970")
    return found.time
