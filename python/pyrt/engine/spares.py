"""Places for containers that are still to come, set aside when nobody waits: a row, a range of ids, a folder.

Whoever starts a container in one has nothing to record first: what may be left of it is on record already. Folders
come from containers that are gone, as far as they go: to remove directories and to make others in their place is what
a file system is slowest at. As many places are kept ready as were taken lately.

::

    the janitor's transaction: row, lease -> its hop to a thread: folder -> ready -> taken by a start
"""

from __future__ import annotations

import os
import secrets
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, final

from pyrt.errors import EngineError

if TYPE_CHECKING:
    from pyrt.engine.journal import Transaction
    from pyrt.engine.recipe import Mould

MOST: Final = 128


class Place(NamedTuple):
    """The id of a container, and the first of its host ids if it has a range of its own."""

    id: str
    id_base: int | None


@final
class Spares:
    """The spare places of one engine, whose id is ``owner``."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._ready: deque[Place] = deque()
        self._taken = 0
        self._wanted = 0
        self._most = MOST

    def take(self, mould: Mould) -> Place | None:
        """A place for a container of this mould; None if there is none, or if it needs another."""
        if not mould.leases_ids or mould.built.upper != "directory":
            return None
        self._taken += 1
        return self._ready.popleft() if self._ready else None

    def give_back(self, place: Place) -> None:
        """It was not used."""
        self._ready.appendleft(place)

    def add(self, made: list[Place]) -> None:
        """Their folders are there."""
        self._ready += made

    def missing(self) -> int:
        """How many to make now: there are to be twice as many as are taken from one time to the next.

        Some of those times are short, so the last ones count as well, each half as much as the one after it.
        """
        self._wanted, self._taken = min(self._most, max(2 * self._taken, self._wanted // 2)), 0
        return max(0, self._wanted - len(self._ready))

    def record(self, count: int, transaction: Transaction) -> list[Place]:
        """Puts so many on record, for the caller to make their folders."""
        recorded = []
        with suppress(EngineError):  # No range of ids is left: it is for whoever starts a container to say so.
            for _ in range(count):
                container = secrets.token_hex(32)
                recorded.append(Place(container, transaction.lease(container)))
                transaction.park(container, self._owner)
        return recorded

    def close(self) -> None:
        """Nobody is going to take one any more."""
        self._most = 0

    def empty(self) -> list[Place]:
        """All there are, for the caller to take away."""
        left = [*self._ready]
        self._ready.clear()
        return left


def remove_unused(folder: str) -> None:
    """Removes the folder of a container that was never started."""
    for name in ("upper", "work", ""):
        os.rmdir(f"{folder}/{name}")
