"""What one open engine holds, and how it writes to the journal. The verbs stand on it, in the other modules."""

from __future__ import annotations

import errno
import logging
import os
import resource
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakSet

import trio

from pyrt import _native
from pyrt.engine.feed import EventStream, Feed
from pyrt.engine.janitor import Janitor
from pyrt.engine.journal import CHECKPOINT_EVERY, Busy, Journal
from pyrt.engine.owner import Owner
from pyrt.engine.spares import Spares
from pyrt.engine.spawner import Spawner
from pyrt.errors import SCARCE, ContainerError, EngineError, HostError, PyrtError, SpecError, StateError
from pyrt.images.store import Store
from pyrt.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyrt.engine.container import Container, Execution
    from pyrt.engine.events import Event
    from pyrt.engine.journal import Transaction
    from pyrt.engine.layout import Layout
    from pyrt.engine.record import Record

log = logging.getLogger("pyrt.engine")

T = TypeVar("T")
R = TypeVar("R")

THREADS: Final = 8
_BUSY_LIMIT: Final = 10.0
_BUSY_FIRST: Final = 0.0005
_BUSY_LONGEST: Final = 0.02


class Core:
    """The parts of an engine. Not to be made directly: ``open_engine`` does it."""

    def __init__(self, layout: Layout, nursery: trio.Nursery, *, kept_events: int) -> None:
        self.layout = layout
        self.nursery = nursery
        self.closing = False
        self.over = trio.Event()
        """Set when nobody works in the background any more."""
        self._owed: list[tuple[Callable[[Transaction], Record], Record]] = []
        self.live: dict[str, Container] = {}
        self.executions: set[Execution] = set()
        self.threads = trio.CapacityLimiter(THREADS)
        with ExitStack() as undo:
            self.owner = Owner(layout.owners)
            undo.callback(self.owner.close)
            self.journal = Journal(layout.journal, kept=kept_events)
            undo.callback(self.journal.close)
            self.feed = Feed(self.journal)
            self.store = Store.open(layout.root)
            undo.callback(self.store.close)
            self.spares = Spares(self.owner.id)
            self.janitor = Janitor(layout.containers, self.journal, self.spares, self.commit, self.threads)
            undo.callback(self.janitor.close)
            self.spawner = Spawner(_native.launch_spawner)
            # Only now: containers are to have the limit that this program was given.
            _raise_descriptor_limit()
            self._parts = undo.pop_all()
        _open.add(self)

    async def close_parts(self) -> None:
        """Ends the spawner and closes everything, in the reverse order."""
        _open.discard(self)
        self.feed.close()
        await self.spawner.aclose()
        self._parts.close()

    def in_background(self, work: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Does something beside all else, until the engine is closed. If it fails that is logged and nobody else's."""
        self.nursery.start_soon(self._guarded, work, arguments, name=work)

    async def _guarded(self, work: Callable[..., Awaitable[object]], arguments: tuple[object, ...]) -> None:
        try:
            await work(*arguments)
        except (PyrtError, OSError):
            log.exception("%s has failed", getattr(work, "__qualname__", work))

    async def commit(self, change: Callable[[Transaction], T]) -> T:
        """Applies a change to the journal, in 20 to 40 us and without a checkpoint, unless another process writes.

        Is not cancelled: what has happened is recorded. Raises StateError.
        """
        try:
            result = self.journal.apply(change)
        except Busy:
            result = await self._commit_in_turn(change)
        if self.journal.commits >= CHECKPOINT_EVERY:
            self.janitor.wake()
        return result

    async def record_now(self) -> None:
        """Records what the journal was given for soon; later, if that can't be done just now."""
        try:
            await self.commit(lambda transaction: None)
        except StateError:
            log.exception("what has happened is not recorded yet")

    async def _commit_in_turn(self, change: Callable[[Transaction], T]) -> T:
        pause = _BUSY_FIRST
        with trio.CancelScope(shield=True), trio.move_on_after(_BUSY_LIMIT):
            while True:
                await trio.sleep(pause)
                try:
                    return self.journal.apply(change)
                except Busy:
                    pause = min(2 * pause, _BUSY_LONGEST)
        raise StateError(
            f"another process has kept the journal locked for {_BUSY_LIMIT:.0f} s",
            hint=f"look for it with: fuser {self.layout.journal}",
        )

    async def tell(self, event: Event) -> None:
        """Records an event that changes no container."""
        await self.commit(lambda transaction: transaction.emit(event))

    def owe(self, change: Callable[[Transaction], Record], record: Record) -> None:
        """Remembers a last move of a container that could not be recorded, for ``pay``."""
        log.error("the end of container %s can't be recorded just now", record.name)
        self._owed.append((change, record))

    def owes(self, container: str) -> bool:
        """Whether a container has ended, and that could not be recorded."""
        return any(record.id == container for _, record in self._owed)

    async def pay(self) -> None:
        """Records what could not be recorded when it happened."""
        owed, self._owed = self._owed, []
        for change, record in owed:
            await self.settle(change, record)

    async def settle(self, change: Callable[[Transaction], Record], record: Record) -> None:
        """Records the last move of a container; sooner or later, for the disk may be full."""
        try:
            self.janitor.discard(await self.commit(change))
        except StateError:
            self.owe(change, record)
        except ContainerError:
            log.exception("the end of container %s is known already", record.name)

    async def in_thread(self, call: Callable[..., R], *arguments: object) -> R:
        """Runs blocking work in a worker thread of the engine's own."""
        return await in_thread(call, *arguments, limiter=self.threads)

    def events(self, since: int | None = None, *, follow: bool = True) -> EventStream:
        """The events after ``since`` (0: all that are kept; None: from now on), then those to come if ``follow``.

        Each exactly once and in order, whichever engine on this state root made them. Where events after
        ``since`` are no longer kept, the first is a Gap that says how many. Raises UsageError for a cursor beyond
        the newest event.
        """
        return EventStream(self.feed, since, follow=follow)

    def require_open(self) -> None:
        """Raises EngineError on an engine that is closed, or being closed."""
        if self.closing:
            raise EngineError("the engine is closed")

    def forget(self) -> None:
        """After a fork, in the child: lets go of all that would keep containers or the engine's lock alive."""
        self.closing = True
        self.spawner.forget()
        self.owner.forget()
        for attended in (*self.live.values(), *self.executions):
            attended.forget()


_open: Final[WeakSet[Core]] = WeakSet()


def _forget_all() -> None:
    """A child that the host program forked, with multiprocessing perhaps, is no engine: the parent goes on with it."""
    for core in [*_open]:
        core.forget()
    _open.clear()


os.register_at_fork(after_in_child=_forget_all)


def _raise_descriptor_limit() -> None:
    """A container takes five descriptors here; many systems allow 1,024 until a program asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass  # Told where it matters: see out_of_descriptors.


def out_of_descriptors(error: BaseException, containers: int) -> EngineError | None:
    """The error to raise if ``error``, of a start, came of there being no file descriptor left."""
    cause = error if isinstance(error, OSError) else error.__cause__
    number = cause.errno if isinstance(cause, OSError) else 0
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    # The compiler of plans opens some twenty, and says in words alone why it could not, as who reads an image's files.
    scarce = isinstance(error, (HostError, SpecError, StateError)) and _descriptors_left(limit) < _FEW
    if not scarce and number not in (errno.EMFILE, errno.ENFILE):
        return None
    return EngineError(
        f"no file descriptor is left for another container: {containers} run, this program may have {limit}",
        hint=SCARCE[errno.ENFILE if number == errno.ENFILE else errno.EMFILE],
    )


_FEW: Final = 64


def _descriptors_left(limit: int) -> int:
    try:
        return limit - len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
