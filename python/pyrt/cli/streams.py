"""A tar to the user's stdout: the client copies out of a pipe, and if it ends, so does whoever writes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyrt.cli.console import Console


async def to_stdout(console: Console, write: Callable[[int], Awaitable[object]]) -> None:
    """Has ``write`` write to a descriptor that is the user's stdout. Raises UsageError if that is a terminal."""
    if console.terminals[1]:
        raise UsageError("an archive is nothing for a terminal", hint="-o FILE, or pipe it into something")
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        await console.relay(output=reader)
        await write(writer)
    finally:
        os.close(writer)
