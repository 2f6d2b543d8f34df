"""``pyrt system install``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pyrt.cli import units
from pyrt.cli.parser import Help, Parser
from pyrt.cli.place import Place

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "system install [OPTIONS]",
    "Makes pyrt a service of systemd: its socket is there from boot on, and so are containers with a restart policy.",
    (
        ("pyrt system install", "once; again after pyrt has moved to another place"),
        ("pyrt system install --print", "the two units, to look at"),
        ("pyrt system install --root /mnt/image", "for the machine whose files are there"),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("--print", action="store_true", help="write nothing, but show what would be written")
    parser.add_argument("--root", metavar="DIR", help="below this folder, for another machine: start nothing")


async def main(invocation: Invocation) -> int:
    options, console = invocation.options, invocation.console
    place = Place.find(console.environment)
    wanted = units.units(place, console.environment)
    if options.print:
        await console.out("\n".join(f"# {units.FOLDER / name}\n{text}" for name, text in wanted.items()))
        return 0
    if options.root is not None:
        written = units.write(console.path(options.root), wanted)
        links = units.enable_below(console.path(options.root))
        await console.out("".join(f"{path}\n" for path in [*written, *links]) or "everything is there already\n")
        return 0
    units.require_systemd()
    written = units.write(Path("/"), wanted)
    await console.out("".join(f"{path}\n" for path in written))
    await units.systemctl("daemon-reload")
    await units.systemctl("enable", "--quiet", units.SOCKET, units.SERVICE)
    if await units.systemctl("is-active", "--quiet", units.SOCKET):
        if written:
            await console.err(f"To use it now: systemctl restart {units.SOCKET} {units.SERVICE}\n")
        else:
            await console.out("pyrt is installed already\n")
        return 0
    # systemd takes over the name of the socket: whoever has it now is to let go of it first.
    await units.make_room(place)
    await units.systemctl("start", units.SOCKET)
    await units.systemctl("start", "--no-block", units.SERVICE)
    await console.out(f"pyrt is served at {place.socket} from now on, and after each start of the machine\n")
    return 0
