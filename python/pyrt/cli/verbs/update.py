"""``pyrt update``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.lasting import RESTART_HELP, parse_restart
from pyrt.cli.options import add_limit_options, limits_of
from pyrt.cli.parser import Help, Parser
from pyrt.cli.several import for_each
from pyrt.errors import UsageError

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "update [OPTIONS] CONTAINER ...",
    "Changes limits and restart policies of containers: at once of those that run, and for the next start of others.",
    (
        ("pyrt update -m 512m --cpus 1.5 web", ""),
        ("pyrt update --restart unless-stopped web", "come back from now on, also after a restart of the machine"),
        ("pyrt update --pids-limit -1 web", "as many processes as it likes"),
        ("pyrt update --cpuset-cpus 0-1 $(pyrt ps -q)", "all that run"),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER", help="names or ids")
    add_limit_options(parser)
    parser.add_argument("--restart", metavar="POLICY", help=RESTART_HELP)
    parser.add_not_built("--kernel-memory", what="a limit of the kernel's memory", hint="leave it out")


async def main(invocation: Invocation) -> int:
    changes = limits_of(invocation.options)
    if invocation.options.restart is not None:
        changes["restart"] = parse_restart(invocation.options.restart)
    if not changes:
        raise UsageError("there is nothing to change", hint=f"usage: pyrt {HELP.usage}")

    async def update(name: str) -> str:
        await invocation.engine.update(name, **changes)
        return name

    return await for_each(invocation.console, invocation.options.containers, update)
