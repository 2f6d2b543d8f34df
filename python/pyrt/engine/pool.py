"""Containers that are made before anybody has asked for them: all is done but the command.

::

    an image is started again with the same options
      ... the engine has nothing to do for a moment ...
    park:  row, lease of ids -> folder -> plan -> a keeper executes it up to AwaitStdio
    take:  the row becomes a record, standard descriptors go to the keeper -> Started

That is the same plan, executed in two goes, and saves whoever starts it all but the last 0.1 ms of the kernel's work. A
parked container belongs to its mould: another image, other options, another machine make another mould. It has run
nothing of the image, and dies with its engine like all that are attached.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, final

import trio

from pyrt import _native
from pyrt.engine import debris
from pyrt.engine.pipes import nanoseconds
from pyrt.engine.process import Process
from pyrt.engine.spawner import control_pair
from pyrt.engine.stopwatch import steps_of
from pyrt.errors import PyrtError

if TYPE_CHECKING:
    from pyrt.engine.joining import Joining
    from pyrt.engine.journal import Transaction
    from pyrt.engine.recipe import Mould

DEFAULT_WARM: Final = 4
"""Parked containers of one engine, all together. Each has some 300 KiB of kernel memory and a keeper's."""
KEPT: Final = 30.0
"""Seconds after which one that nobody took is taken away; starts that lie further back count no more."""
QUIET: Final = 0.002
"""Seconds after a start in which nothing is parked: its own end, and the answer to whoever waits for it, come first.
In a series without a pause one is parked for each start."""

log = logging.getLogger("pyrt.engine")


class Parked(NamedTuple):
    """A container that waits for its standard descriptors."""

    id: str
    id_base: int | None
    mould: Mould
    process: Process
    until: float

    def documents(self) -> tuple[bytes, bytes]:
        """What its plan was compiled from."""
        return self.mould.fill(self.id, self.id_base, parked=True)


@final
class Pool:
    """The parked containers of one engine, ``most`` at a time; 0 for none."""

    def __init__(self, engine: Joining, most: int) -> None:
        self._engine = engine
        self._most = most
        self._parked: deque[Parked] = deque()
        self._dropped: deque[Parked] = deque()
        self._turn = trio.Lock()
        self._asked: dict[Mould, deque[float]] = {}
        """When containers of a mould were started lately."""
        self._last = 0.0
        self._wanted = trio.Event()
        self._filled = trio.Event()
        self._filled.set()

    def take(self, mould: Mould) -> Parked | None:
        """One of this mould that is alive, for the caller to wake or to drop; None if there is none."""
        if not self._most or not mould.can_wait:
            return None
        self._note(mould)
        for parked in [*self._parked]:
            if parked.mould is mould:
                self._parked.remove(parked)
                if parked.process.is_silent():
                    return parked
                self.drop(parked)
        return None

    def _note(self, mould: Mould) -> None:
        self._last = trio.current_time()
        asked = self._asked.get(mould)
        if asked is None:
            asked = self._asked[mould] = deque(maxlen=self._most)
        asked.append(self._last)
        if len(asked) > 1:
            self._wake()

    async def filled(self) -> int:
        """Waits until all that is wanted is parked, as far as it can be; returns how many are."""
        await self._filled.wait()
        return len(self._parked)

    def _wake(self) -> None:
        self._filled = trio.Event() if self._filled.is_set() else self._filled
        self._wanted.set()

    def drop(self, parked: Parked) -> None:
        """Has one taken away that nobody is to have."""
        self._dropped.append(parked)
        self._wake()

    async def run(self) -> None:
        """Fills the pool when starts leave time for it; works until it is cancelled."""
        while self._most:
            with trio.move_on_after(KEPT if self._parked or self._asked else float("inf")):
                await self._wanted.wait()
            self._wanted = trio.Event()
            await trio.sleep(QUIET)
            with trio.CancelScope(shield=True):
                async with self._turn:
                    await self._fill()
            if not self._wanted.is_set():
                self._filled.set()

    async def _fill(self) -> None:
        self._tidy()
        missing = self._make_room()
        await self._take_away_dropped()
        last = self._last
        for mould in missing:
            await self._park(mould)
            if self._last != last:
                # Somebody starts containers again: the rest is for later.
                self._wake()
                return

    async def aclose(self) -> None:
        """Takes all away. Nothing may be taken any more, and nothing is parked."""
        async with self._turn:
            self._most = 0
            self._dropped += self._parked
            self._parked.clear()
            await self._take_away_dropped()

    def forget(self) -> None:
        """After a fork, in the child: see ``Core.forget``."""
        for parked in (*self._parked, *self._dropped):
            parked.process.forget()

    async def _take_away_dropped(self) -> None:
        async with trio.open_nursery() as nursery:
            while self._dropped:
                nursery.start_soon(self._take_away, self._dropped.popleft())

    def _tidy(self) -> None:
        """Forgets what is long ago."""
        now = trio.current_time()
        for mould, asked in [*self._asked.items()]:
            if asked[-1] + KEPT < now:
                del self._asked[mould]
        for parked in [*self._parked]:
            if parked.until < now or not self._engine.recipes.is_current(parked.mould):
                self._put_away(parked)

    def _put_away(self, parked: Parked) -> None:
        self._parked.remove(parked)
        self._dropped.append(parked)

    def _make_room(self) -> list[Mould]:
        """Puts away what others are wanted more than; returns what to park."""
        missing = self._wanted_moulds()
        for parked in [*self._parked]:
            if parked.mould in missing:
                missing.remove(parked.mould)
            else:
                self._put_away(parked)
        return missing

    def _wanted_moulds(self) -> list[Mould]:
        """What is to be parked: one of each mould that was started twice lately, the last first, then a second, and on.

        Of none more than were started.
        """
        since = trio.current_time() - KEPT
        lately = {mould: sum(at > since for at in asked) for mould, asked in self._asked.items()}
        known = [mould for mould, count in lately.items() if count > 1 and self._engine.recipes.is_current(mould)]
        known.sort(key=lambda mould: self._asked[mould][-1], reverse=True)
        wanted = [mould for nth in range(self._most) for mould in known if lately[mould] > nth]
        return wanted[: self._most]

    async def _park(self, mould: Mould) -> None:
        engine = self._engine
        container = secrets.token_hex(32)

        def change(transaction: Transaction) -> int | None:
            transaction.park(container, engine.owner.id)
            return transaction.lease(container) if mould.leases_ids else None

        try:
            base = await engine.commit(change)
        except PyrtError:
            return  # A full disk, most likely; a start will say so.
        ours, theirs = control_pair()
        parked = Parked(container, base, mould, Process(ours), trio.current_time() + KEPT)
        try:
            with theirs, engine.store.pinned():
                if mould.built.upper == "directory":
                    engine.spares.take(container)
                plan = _native.compile(*parked.documents())
                mould.parked_steps = mould.parked_steps or steps_of(plan)
                message, descriptors = plan.start_message(*[theirs.fileno()] * 4, limit=nanoseconds(mould.limit))
                await engine.spawner.send(message, descriptors)
                del plan
        except (PyrtError, OSError) as error:
            # Whoever starts the next one in the plain way is told why.
            log.debug("no container could be made beforehand: %s", error)
            self._asked.pop(mould, None)
            await self._take_away(parked)
            return
        self._parked.append(parked)

    async def _take_away(self, parked: Parked) -> None:
        engine = self._engine
        with trio.CancelScope(shield=True):
            await parked.process.dismiss()
            if not await debris.clear_cgroups(parked.id, parked.mould.built.cgroup_parent):
                return  # The row stays, and with it what a later engine has to clear.
            stuck = await engine.janitor.remove_folders([parked.id])
            if not stuck:
                with suppress(PyrtError):
                    await engine.commit(lambda transaction: transaction.dispose(parked.id))
