"""``pyrt stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from pyrt.cli import figures
from pyrt.cli.listing import Column, add_format_options, render
from pyrt.cli.parser import Help, Parser
from pyrt.engine.states import LIVE, State
from pyrt.errors import ContainerError, ContainerNotFound

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation
    from pyrt.engine.consumption import Stats
    from pyrt.engine.engine import Engine
    from pyrt.engine.record import Record

HELP = Help(
    "stats [OPTIONS] [CONTAINER ...]",
    "Shows what containers use, again and again on a terminal, until it is ended.",
    (
        ("pyrt stats", "all that run"),
        ("pyrt stats --no-stream --json web", "once, for a program"),
        ("pyrt stats --format '{{.Name}}: {{.CPUPerc}}'", ""),
    ),
)

COLUMNS: Final = (
    Column("ID", "CONTAINER ID"),
    Column("Name", "NAME"),
    Column("CPUPerc", "CPU %"),
    Column("MemUsage", "MEM USAGE / LIMIT"),
    Column("MemPerc", "MEM %"),
    Column("NetIO", "NET I/O"),
    Column("BlockIO", "BLOCK I/O"),
    Column("PIDs", "PIDS"),
)
_TITLES: Final = {"Container": "CONTAINER"}
# A processor's time is counted in hundredths of a second.
_FIRST: Final = 0.5
_EVERY: Final = 1.0
_HOME: Final = "\x1b[H"
_CLEAR: Final = "\x1b[2J\x1b[H"
_CLEAR_LINE: Final = "\x1b[K"
_CLEAR_REST: Final = "\x1b[J"


def arguments(parser: Parser) -> None:
    parser.add_argument("containers", nargs="*", metavar="CONTAINER", help="names or ids")
    parser.add_argument("-a", "--all", action="store_true", help="also containers that do not run")
    parser.add_argument("--no-stream", action="store_true", help="once")
    parser.add_argument("--no-trunc", action="store_true", help="whole ids")
    add_format_options(parser)


async def main(invocation: Invocation) -> int:
    options, console = invocation.options, invocation.console
    live = console.terminals[1] and not options.no_stream
    before = await _look(invocation)
    pause, started = _FIRST, False
    while True:
        await trio.sleep(pause)
        now = await _look(invocation)
        text = render(_rows(invocation, before, now), COLUMNS, options.format, _TITLES)
        await console.out(_over(text, first=not started) if live else text)
        if options.no_stream:
            return 0
        before, pause, started = now, _EVERY, True


def _over(text: str, *, first: bool) -> str:
    """Over what was shown before, line by line, so that nothing flickers."""
    return (_CLEAR if first else _HOME) + text.replace("\n", f"{_CLEAR_LINE}\n") + _CLEAR_REST


def _chosen(engine: Engine, options: Any) -> list[Record]:
    if options.containers:
        return [engine.inspect(name) for name in options.containers]
    runs = LIVE - {State.STARTING}
    return [record for record in engine.containers() if options.all or record.state in runs]


async def _look(invocation: Invocation) -> dict[str, tuple[str, Stats | None]]:
    """By id, the name of each container and what it uses; nothing for one that does not run."""
    engine = invocation.engine
    found: dict[str, tuple[str, Stats | None]] = {}
    for record in _chosen(engine, invocation.options):
        try:
            found[record.id] = record.name, await engine.stats(record.id)
        except ContainerNotFound:
            continue
        except ContainerError:
            found[record.id] = record.name, None
    return found


def _rows(
    invocation: Invocation,
    before: dict[str, tuple[str, Stats | None]],
    now: dict[str, tuple[str, Stats | None]],
) -> list[dict[str, Any]]:
    whole = invocation.options.no_trunc
    return [
        {
            "Container": identifier if whole else figures.short(identifier),
            "ID": identifier if whole else figures.short(identifier),
            "Name": name,
            **_figures(before.get(identifier, ("", None))[1], stats),
        }
        for identifier, (name, stats) in now.items()
    ]


def _figures(before: Stats | None, now: Stats | None) -> dict[str, str]:
    if now is None:
        return {
            "CPUPerc": "--",
            "MemUsage": "-- / --",
            "MemPerc": "--",
            "NetIO": "--",
            "BlockIO": "--",
            "PIDs": "--",
        }
    return {
        "CPUPerc": f"{now.cpu_share(before) if before else 0.0:.2f}%",
        "MemUsage": f"{figures.size(now.memory, binary=True)} / {figures.size(now.memory_limit, binary=True)}",
        "MemPerc": f"{now.memory_share:.2f}%",
        "NetIO": f"{figures.size(now.network_received)} / {figures.size(now.network_sent)}",
        "BlockIO": f"{figures.size(now.block_read)} / {figures.size(now.block_written)}",
        "PIDs": str(now.pids),
    }
