"""Asking before something is removed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from pyrt.threads import in_thread

if TYPE_CHECKING:
    from pyrt.cli.console import Console

_LONGEST_ANSWER: Final = 256


async def is_sure(console: Console, warning: str) -> bool:
    """Whether the user answers yes."""
    await console.err(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    source = await console.input_file()
    try:
        answer = await _line(source)
    finally:
        os.close(source)
    return answer.strip().lower() in {"y", "yes"}


async def _line(source: int) -> str:
    """A pipe whose writer is the client, or this process's own terminal: a thread that hangs in it hangs alone."""
    answer = await in_thread(os.read, source, _LONGEST_ANSWER, abandon_on_cancel=True)
    return answer.decode(errors="replace")
