"""``pyrt.run``: one container, run to its end, for programs that do without Trio."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from pyrt.engine.container import DEFAULT_OUTPUT
from pyrt.engine.engine import open_engine
from pyrt.errors import UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from pyrt.engine.results import Completed
    from pyrt.runtime.options import Limits


def run(
    image: str,
    command: Sequence[str] = (),
    *,
    stdin: bytes = b"",
    limits: Limits | None = None,
    max_output: int = DEFAULT_OUTPUT,
    root: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Completed:
    """Runs a command in a new container to its end, and removes the container; see ``Engine.run``.

    Opens an engine on the state folder ``root`` for this one call, a few milliseconds; a program that runs many
    containers, or several at once, does better with ``open_engine``. Ctrl-C kills the container.
    """
    if trio.lowlevel.in_trio_run():
        raise UsageError(
            "pyrt.run blocks, and would hold up all tasks of this Trio program",
            hint="async with pyrt.open_engine() as engine: await engine.run(...)",
        )
    return trio.run(partial(_run, root, image, command, stdin=stdin, limits=limits, max_output=max_output, **options))


async def _run(root: str | os.PathLike[str] | None, image: str, command: Sequence[str], **arguments: Any) -> Completed:
    async with open_engine(root) as engine:
        return await engine.run(image, command, **arguments)
