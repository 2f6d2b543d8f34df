"""Containers that are made before anybody has asked for them: all is done but the command.

::

    an image is started again with the same options
      ... the engine has nothing to do for a moment ...
    park:  row, lease of ids -> folder -> plan -> a keeper executes it up to AwaitStdio
    take:  the row becomes a record, standard descriptors go to the keeper -> Started,
           or what the keeper of a detached container needs: it is one from then on

That is the same plan, executed in two goes, and saves whoever starts it all but the last 0.1 ms of the kernel's work. A
parked container belongs to its frame: another image, other options, another machine make another frame, another command
or environment does not, nor whether it is to be detached. It has run nothing of the image, and dies with its engine
until it is taken.
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
from pyrt.engine.spares import Place
from pyrt.engine.spawner import control_pair
from pyrt.engine.stopwatch import steps_of
from pyrt.errors import PyrtError

if TYPE_CHECKING:
    from pyrt.engine.joining import Joining
    from pyrt.engine.journal import Transaction
    from pyrt.engine.recipe import Frame, Mould

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
    frame: Frame
    process: Process
    until: float
    takes_command: bool = False
    """Whether another command of the same frame may take the place of its own."""
    command: bytes = b""
    """What is to take the place of its own, if anything is."""

    @property
    def place(self) -> Place:
        return Place(self.id, self.id_base)

    def documents(self) -> tuple[bytes, bytes]:
        """What its plan was compiled from; with another command, what it would have been compiled from."""
        return self.mould.fill(self.id, self.id_base, parked=True)

    def meant_for(self, mould: Mould) -> Parked | None:
        """The same with the command of ``mould``; None if it can't take that."""
        if mould is self.mould:
            return self
        command = mould.command(self.id) if self.takes_command else None
        return self._replace(mould=mould, command=command) if command else None


class _Asked:
    """When containers of a frame were started lately, and the mould of the last one."""

    def __init__(self, mould: Mould, most: int) -> None:
        self.mould = mould
        self.times: deque[float] = deque(maxlen=most)


@final
class Pool:
    """The parked containers of one engine, ``most`` at a time; 0 for none."""

    def __init__(self, engine: Joining, most: int) -> None:
        self._engine = engine
        self._most = most
        self._parked: deque[Parked] = deque()
        self._dropped: deque[Parked] = deque()
        self._left: list[Parked] = []
        """Ended, and not quite taken away."""
        self._turn = trio.Lock()
        self._asked: dict[Frame, _Asked] = {}
        self._last = 0.0
        self._wanted = trio.Event()
        self._filled = trio.Event()
        self._filled.set()

    def take(self, mould: Mould) -> Parked | None:
        """One that is alive and can be of this mould, for the caller to wake or to drop; None if there is none.

        Best one that was made with this very command.
        """
        frame = mould.frame
        # What stays as it is can be made beforehand, unless a terminal's size is wanted.
        if not self._most or frame is None or frame.options.tty:
            return None
        self._note(frame, mould)
        fitting = sorted(
            (parked for parked in self._parked if parked.frame is frame), key=lambda it: it.mould is not mould
        )
        for parked in fitting:
            meant = parked.meant_for(mould)
            if meant is None:
                continue
            self._parked.remove(parked)
            if parked.process.is_silent():
                return meant
            self.drop(parked)
        return None

    def _note(self, frame: Frame, mould: Mould) -> None:
        self._last = trio.current_time()
        asked = self._asked.get(frame)
        if asked is None:
            asked = self._asked[frame] = _Asked(mould, self._most)
        asked.times.append(self._last)
        asked.mould = mould
        if len(asked.times) > 1:
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
                    try:
                        await self._fill()
                    except OSError as error:
                        log.debug("no container can be made beforehand: %s", error)
            if not self._wanted.is_set():
                self._filled.set()

    async def _fill(self) -> None:
        self._tidy()
        missing = self._make_room()
        await self._take_away_dropped()
        await self._clear_left()
        last = self._last
        for frame in missing:
            await self._park(frame)
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
            await self._clear_left()

    def forget(self) -> None:
        """After a fork, in the child: see ``Core.forget``."""
        for parked in (*self._parked, *self._dropped):
            parked.process.forget()

    async def _take_away_dropped(self) -> None:
        if not self._dropped:
            return
        async with trio.open_nursery() as nursery:
            while self._dropped:
                nursery.start_soon(self._take_away, self._dropped.popleft())

    def _tidy(self) -> None:
        """Forgets what is long ago."""
        now = trio.current_time()
        for frame, asked in [*self._asked.items()]:
            if asked.times[-1] + KEPT < now:
                del self._asked[frame]
        for parked in [*self._parked]:
            if parked.until < now or not self._engine.recipes.is_current(parked.frame):
                self._put_away(parked)

    def _put_away(self, parked: Parked) -> None:
        self._parked.remove(parked)
        self._dropped.append(parked)

    def _make_room(self) -> list[Frame]:
        """Puts away what others are wanted more than; returns what to park."""
        missing = self._wanted_frames()
        for parked in [*self._parked]:
            if parked.frame in missing:
                missing.remove(parked.frame)
            else:
                self._put_away(parked)
        return missing

    def _wanted_frames(self) -> list[Frame]:
        """What is to be parked: one of each frame that was asked for twice lately, the last first, then a second.

        Of none more than were started.
        """
        since = trio.current_time() - KEPT
        lately = {frame: sum(at > since for at in asked.times) for frame, asked in self._asked.items()}
        known = [frame for frame, count in lately.items() if count > 1 and self._engine.recipes.is_current(frame)]
        known.sort(key=lambda frame: self._asked[frame].times[-1], reverse=True)
        wanted = [frame for nth in range(self._most) for frame in known if lately[frame] > nth]
        return wanted[: self._most]

    async def _park(self, frame: Frame) -> None:
        engine = self._engine
        asked = self._asked.get(frame)
        if asked is None:
            return
        mould = asked.mould
        spare = engine.spares.take(mould)
        container = spare.id if spare else secrets.token_hex(32)

        def change(transaction: Transaction) -> int | None:
            transaction.park(container, engine.owner.id)
            return transaction.lease(container) if mould.leases_ids else None

        ours, theirs = control_pair()
        process = Process(ours)
        with theirs:
            try:
                base = spare.id_base if spare else await engine.commit(change)
            except PyrtError:
                process.close()
                return  # A full disk, most likely; a start will say so.
            parked = Parked(container, base, mould, frame, process, trio.current_time() + KEPT)
            try:
                with engine.store.pinned():
                    if mould.built.upper == "directory" and not spare:
                        _native.make_upper(engine.layout.folder(container))
                    plan = _native.compile(*parked.documents())
                    frame.steps = frame.steps or steps_of(plan)
                    parked = parked._replace(takes_command=plan.takes_command)
                    limit = nanoseconds(frame.options.limits.time)
                    message, descriptors = plan.start_message(*[theirs.fileno()] * 4, limit=limit)
                    await engine.spawner.send(message, descriptors)
                    del plan
            except (PyrtError, OSError) as error:
                # Whoever starts the next one in the plain way is told why.
                log.debug("no container could be made beforehand: %s", error)
                self._asked.pop(frame, None)
                theirs.close()
                await self._take_away(parked)
                return
        self._parked.append(parked)

    async def _take_away(self, parked: Parked) -> None:
        with trio.CancelScope(shield=True):
            await parked.process.dismiss()
            await self._clear(parked)

    async def _clear(self, parked: Parked) -> None:
        """Removes what a parked container has left; what can't be is tried again, if need be by a later engine."""
        engine = self._engine
        try:
            clear = await debris.clear_cgroups(parked.id, parked.mould.built.cgroup_parent)
        except OSError:
            clear = False  # No descriptor is left.
        if clear and not await engine.janitor.remove_folders([parked.id]):
            with suppress(PyrtError):
                await engine.commit(lambda transaction: transaction.dispose(parked.id))
                return
        self._left.append(parked)

    async def _clear_left(self) -> None:
        left, self._left = self._left, []
        for parked in left:
            await self._clear(parked)
