"""What systemd hands to a service that it starts: sockets on which others may wait already (sd_listen_fds(3)), and
where it is told that the service is ready (sd_notify(3)).

Both come as environment variables, which nobody else is to see.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pyrt.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

FIRST: Final = 3
"""SD_LISTEN_FDS_START."""


def inherited_listener(path: Path) -> socket.socket | None:
    """The socket that listens at ``path``, if this process was started with it; it is nobody else's from now on.

    Raises EngineError where others were given than the one that clients look for.
    """
    process, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or not count.isdecimal() or not int(count):
        return None
    given = [socket.socket(fileno=FIRST + number) for number in range(int(count))]
    for each in given:
        each.set_inheritable(False)
    names = [_listens_at(each) for each in given]
    if names == [os.fspath(path)]:
        return given[0]
    for each in given:
        each.close()
    raise EngineError(
        f"this server was started with {' and '.join(names)}, where its clients look for {path}",
        hint="ListenStream= of its socket unit names that path alone; PYRT_RUN and PYRT_ROOT are those of the clients",
    )


def _listens_at(given: socket.socket) -> str:
    if given.family != socket.AF_UNIX or given.type != socket.SOCK_STREAM:
        return "a socket of another kind"
    if not given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "a socket that does not listen"
    name = given.getsockname()
    return os.fsdecode(name) or "a socket without a name"


def say_ready() -> None:
    """Tells systemd that clients are served, if it asks for that."""
    name = os.environ.pop("NOTIFY_SOCKET", "")
    if not name:
        return
    # Who does not listen any more need not know.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect("\0" + name[1:] if name.startswith("@") else name)
        notify.send(b"READY=1")
