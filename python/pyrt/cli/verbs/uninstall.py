"""``pyrt system uninstall``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pyrt.cli import units
from pyrt.cli.parser import Help, Parser
from pyrt.cli.place import Place

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "system uninstall [OPTIONS]",
    "Takes pyrt's units away from systemd. Containers stay, and run on; nobody starts them again with the machine.",
    (("pyrt system uninstall", ""),),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("--root", metavar="DIR", help="below this folder, of another machine")


async def main(invocation: Invocation) -> int:
    options, console = invocation.options, invocation.console
    if options.root is not None:
        removed = units.remove(console.path(options.root))
        await console.out("".join(f"{path}\n" for path in removed) or "nothing is installed there\n")
        return 0
    units.require_systemd()
    found = units.found(Path("/"))
    if found:
        await units.systemctl("disable", "--quiet", units.SOCKET, units.SERVICE)
        # This very server may be the service: it ends when it has done what it has to do, this verb among it.
        await units.make_room(Place.find(console.environment))
        await units.systemctl("stop", units.SOCKET)
        units.remove(Path("/"))
        await units.systemctl("daemon-reload")
    await console.out("".join(f"{path}\n" for path in found) or "nothing is installed\n")
    return 0
