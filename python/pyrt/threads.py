"""Blocking work beside Trio's loop, for every room; a machine that has no thread left says so in a sentence."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import trio

from pyrt.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

R = TypeVar("R")

# Of CPython's thread module, which has no class of its own for it.
_NONE_LEFT = "can't start new thread"


async def in_thread(
    call: Callable[..., R],
    *arguments: object,
    limiter: trio.CapacityLimiter | None = None,
    abandon_on_cancel: bool = False,
) -> R:
    """Runs ``call`` in a worker thread; raises HostError where none can be started. The rest is Trio's."""
    with wanted():
        return await trio.to_thread.run_sync(call, *arguments, limiter=limiter, abandon_on_cancel=abandon_on_cancel)


@contextmanager
def wanted() -> Iterator[None]:
    """Around what starts a thread itself, as Trio does for a process or a host's name: raises HostError too."""
    try:
        yield
    except RuntimeError as error:
        if _NONE_LEFT not in str(error):
            raise
        hint = "the host has no memory left, or a limit on processes is reached: ulimit -u, pids.max of the cgroup"
        raise HostError("no thread can be started", hint=hint) from error
