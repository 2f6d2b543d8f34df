"""What journald is told with each line of a container whose log driver is `journald`: the fields that Docker's writes.

The keeper sends the lines (``rust/init/src/keeper/journal.rs``); here is said to where, and as whose.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pyrt.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrt.engine.record import Record

SOCKET: Final = "/run/systemd/journal/socket"
_LONGEST: Final = 1024
"""Of one field's value: they are sent with every line."""


def target(record: Record) -> bytes:
    """The socket's name, NUL, and the fields that come with each line of a container, for its keeper."""
    assert record.lasting is not None
    tag = tagged(record, record.lasting.log.tag)
    fields = {
        "CONTAINER_ID": record.id[:12],
        "CONTAINER_ID_FULL": record.id,
        "CONTAINER_NAME": record.name,
        "CONTAINER_TAG": tag,
        "IMAGE_NAME": record.image,
        "SYSLOG_IDENTIFIER": tag,
    }
    lines = (f"{name}={_line(value)}\n".encode(errors="surrogateescape") for name, value in fields.items())
    return os.fsencode(os.path.basename(SOCKET)) + b"\0" + b"".join(lines)


@contextmanager
def folder() -> Iterator[int]:
    """Where the socket lies, open for the time of the block. Raises HostError if it does not."""
    try:
        opened = os.open(os.path.dirname(SOCKET), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise _absent() from None
    try:
        if not _is_socket(opened):
            raise _absent()
        yield opened
    finally:
        os.close(opened)


def _is_socket(opened: int) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(os.path.basename(SOCKET), dir_fd=opened).st_mode)
    except OSError:
        return False


def _absent() -> HostError:
    return HostError(
        f"journald is not there: no socket at {SOCKET}", hint="--log-driver local keeps the output without it"
    )


def tagged(record: Record, tag: str) -> str:
    """The tag with a container's own names in it; its short id if there is none."""
    names = {"ID": record.id[:12], "FullID": record.id, "Name": record.name, "ImageName": record.image}
    for name, value in names.items():
        tag = tag.replace(f"{{{{.{name}}}}}", value)
    return tag or record.id[:12]


def _line(value: str) -> str:
    """One line: a newline would begin another field."""
    return value.replace("\n", " ")[:_LONGEST]
