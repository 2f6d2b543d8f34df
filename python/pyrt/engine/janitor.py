"""Takes away what containers leave, off everybody's way, many at a time; makes places for others meanwhile.

A container that is to go is in state ``removing``. First its cgroups and its folder go, then, in one transaction with
others, its record: so a record is there for as long as anything else is, and a killed engine's successor finds it.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, final

import trio

from pyrt import _native
from pyrt.engine import keepers
from pyrt.engine.cgroups import Groups
from pyrt.engine.events import ContainerRemoved
from pyrt.engine.journal import CHECKPOINT_EVERY
from pyrt.engine.states import State
from pyrt.errors import ContainerNotFound, HostError, IllegalTransition, PyrtError
from pyrt.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrt.engine.journal import Journal, Transaction
    from pyrt.engine.record import Record
    from pyrt.engine.spares import Place, Spares

    T = TypeVar("T")

    class Commit(Protocol):
        """Writes to the journal."""

        async def __call__(self, change: Callable[[Transaction], T]) -> T: ...


log = logging.getLogger("pyrt.engine")
_BATCH: Final = 16
LINGER: Final = 0.03
"""Seconds to wait for more: one hop to a thread and one transaction serve all."""


@final
class Janitor:
    """One task that removes folders in a worker thread. ``commit`` writes to the journal, also if it is busy."""

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        spares: Spares,
        commit: Commit,
        threads: trio.CapacityLimiter,
    ) -> None:
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._journal = journal
        self._spares = spares
        self._commit = commit
        self._threads = threads
        self._pending: list[Record] = []
        self._work = trio.Event()
        self._hurry = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self._failed: list[Record] = []

    def discard(self, record: Record) -> None:
        """Has a container taken away of which no process is left, if it is in state ``removing``."""
        if record.state is State.REMOVING:
            self._pending.append(record)
            self.wake()

    def try_again(self) -> None:
        """Has what could not be taken away tried once more."""
        for record in self._clear_failed():
            self.discard(record)

    def _clear_failed(self) -> list[Record]:
        failed, self._failed = self._failed, []
        return failed

    def wake(self) -> None:
        """There is something to do."""
        self._idle = trio.Event() if self._idle.is_set() else self._idle
        self._work.set()

    async def settled(self) -> None:
        """Returns when all that was discarded so far is gone; makes it hurry."""
        self._hurry.set()
        await self._idle.wait()

    async def run(self) -> None:
        """Works until it is cancelled, which is to happen when it has settled."""
        while True:
            await self._work.wait()
            with trio.move_on_after(LINGER):
                await self._hurry.wait()
            self._work, self._hurry = trio.Event(), trio.Event()
            with trio.CancelScope(shield=True):
                await self._tidy()
            if not self._work.is_set():
                self._idle.set()

    def close(self) -> None:
        """Closes what it holds."""
        os.close(self._folder)

    async def remove_folders(self, names: list[str]) -> frozenset[str]:
        """Removes folders of containers; returns the names of those that stay."""
        return (await self._remove_folders(names, [], []))[0] if names else frozenset()

    async def clear_spares(self) -> None:
        """Takes the places away that nobody has taken; what can't be is another engine's to find."""
        left = [spare.id for spare in self._spares.empty()]
        gone = set(left) - await self.remove_folders(left)
        if not gone:
            return
        try:
            await self._commit(lambda transaction: transaction.dispose(*gone))
        except PyrtError:
            log.exception("places for containers to come could not be given up")

    async def _tidy(self) -> None:
        try:
            while self._pending:
                batch, self._pending = self._pending[:_BATCH], self._pending[_BATCH:]
                await self._remove(batch)
            if self._journal.commits >= CHECKPOINT_EVERY:
                await in_thread(self._journal.checkpoint, limiter=self._threads)
        except PyrtError:
            log.exception("the journal could not be brought into the database")

    async def _remove(self, batch: list[Record]) -> None:
        spares = await self._recorded_spares()
        stuck, made = await self._remove_folders([record.id for record in batch], _groups(batch), spares)
        self._spares.add(spares[:made])
        self._failed += [record for record in batch if record.id in stuck]
        gone = [record for record in batch if record.id not in stuck]
        for record in gone:
            if record.keeper:
                # Of one that was killed after it had told the end, while nobody looked.
                keepers.forget(Path(record.keeper))
        try:
            await self._commit(partial(self._forget, gone, spares[made:]))
        except PyrtError:
            # A full disk, most likely.
            log.exception("the removal of %d containers could not be recorded", len(gone))
            self._failed += gone

    async def _recorded_spares(self) -> list[Place]:
        """Places to make in this round: on record before there is anything of them."""
        count = self._spares.missing()
        try:
            return await self._commit(partial(self._spares.record, count)) if count else []
        except PyrtError:
            return []  # A full disk, most likely: whoever starts a container will say so.

    def _forget(self, batch: list[Record], unmade: list[Place], transaction: Transaction) -> None:
        for record in batch:
            try:
                transaction.delete(record)
            except (ContainerNotFound, IllegalTransition):
                continue  # Another engine was faster.
            transaction.emit(ContainerRemoved(container=record.id, name=record.name, image=record.image))
        transaction.dispose(*(spare.id for spare in unmade))

    async def _remove_folders(
        self, names: list[str], groups: list[str], spares: list[Place]
    ) -> tuple[frozenset[str], int]:
        """Returns the names of those that stay, and how many folders of spares are made: fewer on a full disk."""
        wanted = [spare.id for spare in spares]
        try:
            stuck, made = await in_thread(_native.tidy, self._folder, names, groups, wanted, limiter=self._threads)
        except HostError:
            return frozenset(names), 0  # No thread is left just now.
        for name, error in stuck:
            log.warning("the folder of container %s can't be removed: %s", str(name)[:12], error)
        return frozenset(str(name) for name, _ in stuck), made


def _groups(batch: list[Record]) -> list[str]:
    try:
        return [folder for record in batch for folder in Groups(record.id, record.cgroup_parent).folders()]
    except PyrtError as error:
        # Who has never looked at the hierarchies has made nothing in them.
        log.warning("what containers have left in cgroups can't be looked at: %s", error)
        return []
