"""Attempts of which either outcome may be right, as long as it is one of the two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.errors import PyrtError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pyrt.engine.results import Completed


async def outcome(attempt: Awaitable[Completed]) -> Completed | PyrtError:
    """What came of it: a process that has run to its end, or the error that kept it from starting."""
    try:
        return await attempt
    except PyrtError as error:
        return error
