"""pyrt as a service of systemd: two units, and the way to put them where systemd finds them.

The socket is there from boot on; the server behind it is started at boot as well, for containers that are to come back,
and by the first client after it has ended. Its containers outlive it: only its main process is ever killed.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from pyrt import threads
from pyrt.cli.protocol import Kind, Malformed, Wire
from pyrt.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyrt.cli.place import Place

SOCKET: Final = "pyrt.socket"
SERVICE: Final = "pyrt.service"
FOLDER: Final = Path("/etc/systemd/system")
_RUNNING: Final = Path("/run/systemd/system")
"""There if systemd is this machine's init: sd_booted(3)."""

_SOCKET: Final = """\
[Unit]
Description=pyrt: the socket of its clients

[Socket]
ListenStream={socket}
SocketMode=0600
DirectoryMode=0700
Backlog=4096
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""

_SERVICE: Final = """\
[Unit]
Description=pyrt: containers that outlive whoever started them
Wants={socket_unit}
After={socket_unit} local-fs.target
RequiresMountsFor={root}

[Service]
Type=notify
{environment}ExecStart={python} -m pyrt serve
# Containers and their keepers run on while the server is restarted.
KillMode=process
Restart=on-failure
Delegate=yes
LimitNOFILE=1048576
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"""

_WANTED_BY: Final = {SOCKET: "sockets.target", SERVICE: "multi-user.target"}


def units(place: Place, environment: Mapping[str, str]) -> dict[str, str]:
    """The text of each unit, by its name: for this Python, and for the folders that ``environment`` names."""
    chosen = [(name, environment[name]) for name in ("PYRT_ROOT", "PYRT_RUN") if environment.get(name)]
    return {
        SOCKET: _SOCKET.format(socket=_escaped(str(place.socket))),
        SERVICE: _SERVICE.format(
            socket_unit=SOCKET,
            root=_quoted(environment.get("PYRT_ROOT") or "/var/lib/pyrt"),
            python=_quoted(sys.executable),
            environment="".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in chosen),
        ),
    }


def _escaped(text: str) -> str:
    """As systemd.unit(5) wants it: its specifiers begin with %."""
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    escaped = _escaped(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"' if set(escaped) & set(" \t\"'\\;") else escaped


def write(root: Path, wanted: Mapping[str, str]) -> list[Path]:
    """Puts the units below ``root``; returns those that were not there just like that."""
    folder = _below(root)
    changed = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in wanted.items():
            path = folder / name
            if not path.exists() or path.read_text() != text:
                new = path.with_name(f".{name}.new")
                new.write_text(text)
                new.chmod(0o644)
                new.rename(path)
                changed.append(path)
    except OSError as error:
        raise HostError(f"the units can't be written: {error.strerror}: {error.filename}", hint="run as root") from None
    return changed


def enable_below(root: Path) -> list[Path]:
    """What `systemctl enable` does, on a machine that does not run; returns the links that were not there."""
    made = []
    for name, target in _WANTED_BY.items():
        link = _below(root) / f"{target}.wants" / name
        link.parent.mkdir(exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(FOLDER / name)
            made.append(link)
    return made


def found(root: Path) -> list[Path]:
    """The units that are there, with their links."""
    folder = _below(root)
    links = [folder / f"{target}.wants" / name for name, target in _WANTED_BY.items()]
    return [path for path in (folder / SOCKET, folder / SERVICE, *links) if path.is_symlink() or path.exists()]


def remove(root: Path) -> list[Path]:
    """Takes the units away; returns those that were there."""
    paths = found(root)
    try:
        for path in paths:
            path.unlink()
    except OSError as error:
        raise HostError(f"the units can't be removed: {error.strerror}: {error.filename}", hint="run as root") from None
    return paths


def _below(root: Path) -> Path:
    return root / FOLDER.relative_to("/")


def require_systemd() -> None:
    """Raises HostError on a machine whose init is another."""
    if not _RUNNING.is_dir():
        raise HostError(
            "this machine was not started by systemd: nobody would start pyrt at boot",
            hint="have your init start `pyrt serve --idle 0`; --root DIR writes the units of another machine",
        )
    if os.geteuid() != 0:
        raise HostError("units of the machine are root's to install", hint="run as root")


async def systemctl(*words: str) -> bool:
    """Runs systemctl; returns whether it says yes. Raises HostError if it fails, but for questions (``is-...``)."""
    with threads.wanted():
        done = await trio.run_process(["systemctl", *words], capture_stdout=True, capture_stderr=True, check=False)
    if done.returncode and not words[0].startswith("is-"):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise HostError(f"systemctl {' '.join(words)} fails: {said[-1] if said else f'status {done.returncode}'}")
    return done.returncode == 0


async def make_room(place: Place) -> None:
    """Has the server that listens now, if there is one, give up its socket; what it has to do is done to its end."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.setblocking(False)
        try:
            connection.connect(os.fspath(place.socket))
        except OSError:
            return
        wire = Wire(connection)
        await wire.send(Kind.DRAIN)
        try:
            await wire.receive()
        except Malformed:
            return
