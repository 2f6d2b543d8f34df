"""``pyrt port``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.engine.recipe import options_of
from pyrt.errors import ContainerError

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "port CONTAINER [PORT[/PROTOCOL]]",
    "Lists the published ports of a container.",
    (("pyrt port web", ""), ("pyrt port web 80/tcp", "")),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("container", metavar="CONTAINER", help="its name or id")
    parser.add_argument("port", nargs="?", metavar="PORT[/PROTOCOL]", help="of the container, this one alone")


async def main(invocation: Invocation) -> int:
    record = invocation.engine.inspect(invocation.options.container)
    if options_of(record).network == "host":
        why, hint = "it is on this machine's network", "its ports are this machine's: ss -ltn"
    else:
        why, hint = "it has loopback alone", "pyrt run --network host lets its ports be this machine's"
    if port := invocation.options.port:
        raise ContainerError(f"port {port} of container {record.name} is not published: {why}", hint=hint)
    await invocation.console.err(f"pyrt: container {record.name} publishes no port: {why}\nhint: {hint}\n")
    return 0
