"""Places for containers that are still to come, set aside when nobody waits: a row, a range of ids, a folder.

Whoever starts a container in one has nothing to record first: what may be left of it is on record already. Folders
come from containers that are gone, as far as they go: to remove directories and to make others in their place is what
a file system is slowest at. As many places are kept ready as were taken lately.

::

    the janitor's transaction: row, lease -> its next hop to a thread: folder -> ready -> taken by a start
                                             (at once if none is ready)
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

MOST: Final = 32


class Spare(NamedTuple):
    """The id that a container is to have, and the first of its host ids."""

    id: str
    id_base: int


@final
class Spares:
    """The spare places of one engine, whose id is ``owner``."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._recorded: list[Spare] = []
        """Those without a folder."""
        self._ready: deque[Spare] = deque()
        self._taken = 0

    def take(self, mould: Mould) -> Spare | None:
        """A place for a container of this mould; None if there is none, or if it needs another."""
        if not mould.leases_ids or mould.built.upper != "directory":
            return None
        self._taken += 1
        return self._ready.popleft() if self._ready else None

    def give_back(self, spare: Spare) -> None:
        """It was not used."""
        self._ready.appendleft(spare)

    def without_folder(self) -> list[Spare]:
        """For the caller to make their folders, and to say with ``add`` which he has made."""
        recorded, self._recorded = self._recorded, []
        return recorded

    @property
    def none_ready(self) -> bool:
        """Whether the next container finds no place, though some are on record."""
        return bool(self._recorded) and not self._ready

    def add(self, made: list[Spare]) -> None:
        """Their folders are there."""
        self._ready += made

    def record(self, transaction: Transaction) -> list[Spare]:
        """Puts some on record; ``keep`` takes them once that is committed.

        For three rounds like the last: in the next these get their folders, and must last for the one after that.
        """
        wanted = min(MOST, 3 * self._taken) - len(self._ready) - len(self._recorded)
        recorded = []
        with suppress(EngineError):  # No range of ids is left: it is for whoever starts a container to say so.
            for _ in range(wanted):
                container = secrets.token_hex(32)
                recorded.append(Spare(container, transaction.lease(container)))
                transaction.park(container, self._owner)
        return recorded

    def keep(self, recorded: list[Spare]) -> None:
        """They are on record."""
        self._taken = 0
        self._recorded += recorded

    def empty(self) -> list[Spare]:
        """All there are, for the caller to take away."""
        left = [*self._recorded, *self._ready]
        self._recorded.clear()
        self._ready.clear()
        return left


def remove_unused(folder: str) -> None:
    """Removes the folder of a container that was never started."""
    for name in ("upper", "work", ""):
        os.rmdir(f"{folder}/{name}")
