"""Folders for containers that are still to come, made when nobody waits.

Three directories on a disk take 70 us, and now and then the milliseconds of a journal commit; to rename one that is
ready takes 10. As many are kept ready as were taken lately.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from pyrt import _native
from pyrt.engine.owner import is_alive

if TYPE_CHECKING:
    from pyrt.engine.layout import Layout

MOST: Final = 32


@final
class Spares:
    """The spare folders of one engine."""

    def __init__(self, layout: Layout, owner: str) -> None:
        self._layout = layout
        self._owner = owner
        self._ready: deque[str] = deque()
        self._taken = 0
        self._made = 0

    def take(self, container: str) -> None:
        """Gives a container its folder, with ``upper`` and ``work`` in it."""
        self._taken += 1
        try:
            spare = self._ready.popleft()
        except IndexError:
            _native.make_upper(self._layout.folder(container))
        else:
            os.rename(spare, self._layout.folder(container))

    def missing(self) -> list[str]:
        """Folders to make with ``_native.make_upper``: as many as have been taken since the last time."""
        wanted, self._taken = min(MOST, self._taken), 0
        numbers = range(self._made, self._made + wanted - len(self._ready))
        self._made = max(self._made, numbers.stop)
        return [f"{self._layout.spares}/{self._owner}-{number}" for number in numbers]

    def add(self, made: list[str]) -> None:
        """They are made, and nobody's yet."""
        self._ready += made

    def clear(self) -> None:
        """Removes what is ready, and what dead engines had."""
        while self._ready:
            remove_unused(Path(self._ready.popleft()))
        for left in list(self._layout.spares.iterdir()):
            owner = left.name.partition("-")[0]
            if owner != self._owner and not is_alive(self._layout.owners, owner):
                remove_unused(left)


def remove_unused(spare: Path) -> None:
    """Removes a folder that no container has written to."""
    with suppress(FileNotFoundError):  # Another engine clears up, too.
        for name in ("upper", "work", ""):
            (spare / name).rmdir()
