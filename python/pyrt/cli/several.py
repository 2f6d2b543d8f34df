"""Doing the same to each of several things: what is done is printed, what fails is said, and the rest is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.dispatch import report
from pyrt.errors import PyrtError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from pyrt.cli.console import Console


async def for_each(console: Console, names: Iterable[str], act: Callable[[str], Awaitable[str]]) -> int:
    """Prints what ``act`` returns for each name; returns the status of the last failure, or 0."""
    status = 0
    for name in names:
        try:
            done = await act(name)
        except PyrtError as error:
            await report(console, error)
            status = error.exit_code
        else:
            await console.out(f"{done}\n" if done else "")
    return status
