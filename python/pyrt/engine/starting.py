"""Starting containers, and seeing them to their ends.

::

    start:  find image -> spec -> [record, lease -> folder] -> plan -> spawner -> Started -> record
    then, one task a container:                               Exited -> record -> end of file -> janitor

What must be on record before the process runs is recorded before: that something of it may be left, which a place set
aside for it (``spares``) and one that is parked say already, and all of it if it is kept or has been given a name. That
it has started is recorded while it runs, and if it ends at once together with its end.
"""

from __future__ import annotations

import secrets
import time
from functools import cache, partial
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, TypeAlias, final

import msgspec
import trio

from pyrt import _native
from pyrt.engine import debris, keepers, names
from pyrt.engine.cgroups import Groups
from pyrt.engine.container import Container
from pyrt.engine.core import out_of_descriptors
from pyrt.engine.events import (
    ContainerCreated,
    ContainerExited,
    ContainerFailed,
    ContainerOutOfMemory,
    ContainerStarted,
)
from pyrt.engine.joining import Joining
from pyrt.engine.lasting import BACKOFF_FIRST, BACKOFF_LONGEST, STEADY
from pyrt.engine.pipes import Stdio, Wanted
from pyrt.engine.pool import Pool
from pyrt.engine.process import KeeperLost
from pyrt.engine.recipe import options_as_json
from pyrt.engine.record import HealthState, Record
from pyrt.engine.results import Verdict
from pyrt.engine.spares import Place
from pyrt.engine.states import State, Verb
from pyrt.engine.stopwatch import Steps, Stopwatch, steps_of
from pyrt.engine.verdict import asked_for
from pyrt.errors import NameInUse, PyrtError, StateError
from pyrt.images.image import familiar_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyrt.engine.events import ContainerEvent
    from pyrt.engine.journal import Transaction
    from pyrt.engine.lasting import Lasting
    from pyrt.engine.layout import Layout
    from pyrt.engine.pool import Parked
    from pyrt.engine.process import Process
    from pyrt.engine.recipe import Mould
    from pyrt.engine.results import ExitStatus, Timing
    from pyrt.images.image import Image
    from pyrt.runtime.options import RunOptions

Began: TypeAlias = "tuple[Process, _native.Started, Steps]"

_FAILED: Final = 125
"""The exit status of a start that failed, as `docker run` has it."""

AT_ONCE: Final = 32
"""Containers that are being started at the same moment; more wait for their turn."""


class Begun(NamedTuple):
    """What is known of a process once it runs: ``at`` is Unix time in nanoseconds."""

    pid: int
    at: int
    timing: Timing
    cause: str


class Asked(NamedTuple):
    """A start, or a container that is to be started later; ``at`` is Unix time in nanoseconds."""

    image: Image
    called: str
    mould: Mould
    options: RunOptions
    keep: bool
    cause: str
    watch: Stopwatch
    at: int

    @property
    def may_run_first(self) -> bool:
        """Whether it can be recorded while it runs, if what may be left of it is on record: that is looked for in the
        usual place, and nobody else can have its name."""
        return not self.keep and not self.options.name and not self.mould.built.cgroup_parent


class Creation(msgspec.Struct, frozen=True):
    """Records a container, what may be left of it if this process is killed from then on, and a lease of ids."""

    draft: Record
    cause: str
    leases: bool
    was_parked: bool
    """What may be left of it is on record, with its lease."""
    named: bool
    """By the user, so that another name will not do."""

    def __call__(self, transaction: Transaction) -> Record:
        record = self.draft
        if self.was_parked:
            transaction.unpark(record.id)
        if self.leases:
            record = msgspec.structs.replace(record, id_base=transaction.lease(record.id))
        try:
            transaction.insert(record)
        except NameInUse:
            if self.named:
                raise
            # One in hundreds of millions for each that is there.
            record = msgspec.structs.replace(record, name=names.generate(secrets.token_hex(2)))
            transaction.insert(record)
        created = ContainerCreated(container=record.id, name=record.name, image=record.image, cause=self.cause)
        transaction.emit(created, at=record.created)
        return record


class Starting(Joining):
    """The engine's way from an image to a container that runs, and from there to its end."""

    def __init__(self, layout: Layout, nursery: trio.Nursery, *, kept_events: int, warm: int) -> None:
        super().__init__(layout, nursery, kept_events=kept_events)
        self.turns = trio.Semaphore(AT_ONCE)
        self.pool = Pool(self, warm)

    def forget(self) -> None:
        super().forget()
        self.pool.forget()

    async def start(
        self,
        image: str | Image,
        options: RunOptions,
        *,
        stdio: tuple[int, int, int] | None = None,
        wants_stdin: bool = True,
        take_ends: Callable[[int, int, int], object] | None = None,
        keep: bool = False,
        asked: str = "",
        cause: str = "start",
        brief: bool = False,
    ) -> Container:
        """Starts a container and returns once its command is executed. It lives as long as the engine at most.

        ``stdio``: descriptors that become its standard input, output and error and stay the caller's; else there are
        pipes, of which that of the input is at its end unless ``wants_stdin``. With a terminal (``options.tty``)
        neither. ``take_ends`` is given our ends of the pipes (-1: there is none), and owns them: before the container
        runs, so that nothing has to be done for them afterwards. ``keep``: record and files stay when it has ended,
        until ``remove``. ``asked`` is the image as the user called it, where ``image`` does not tell. ``brief``: other
        processes need not see at once that it runs, so that start and end can be recorded together if it ends soon.
        The call is not cancelled between the start and its return: use ``destroy`` in a ``finally``.
        """
        self.require_open()
        watch = Stopwatch()
        check_name(options)
        wanted = Wanted(stdio, wants_stdin and not options.tty, None if options.tty else take_ends)
        container = await self._start_in_turn(image, options, wanted, watch, asked, cause, keep=keep)
        if not brief:
            try:
                await self.commit(lambda transaction: None)
            except BaseException:
                await container.destroy("not recorded")
                raise
        return container

    async def _start_in_turn(
        self,
        image: str | Image,
        options: RunOptions,
        wanted: Wanted,
        watch: Stopwatch,
        asked: str,
        cause: str,
        *,
        keep: bool,
    ) -> Container:
        async with self._turn():
            found = self.recipes.image(self.find_image, image)
            watch.mark("find the image")
            mould = self.recipes.mould(found, options, keep=keep)
            watch.mark("make the specification")
            request = Asked(found, asked or called_by(image, found), mould, options, keep, cause, watch, time.time_ns())
            parked = self.pool.take(mould)
            with self._streams(wanted, parked) as ends:
                watch.mark("make its pipes")
                place = parked.place if parked else self.spares.take(mould)
                if place and request.may_run_first:
                    return await self._run_first(request, place, parked, ends)
                return await self._record_first(request, place, parked, ends)

    async def _run_first(self, asked: Asked, place: Place, parked: Parked | None, ends: Stdio) -> Container:
        """Starts a container of which nothing is kept, and has all of it recorded while it runs."""
        creation = cache(lambda: self._creation(asked, place))
        try:
            began = await self._executed(asked, place, parked, ends, meanwhile=creation)
            return self._runs(asked, creation().draft, began, ends, creation())
        except BaseException as error:
            await self._fail(await self.commit(creation()), error)

    async def _record_first(self, asked: Asked, place: Place | None, parked: Parked | None, ends: Stdio) -> Container:
        record = await self._created(self._creation(asked, place), parked)
        asked.watch.mark("record it")
        try:
            if not place:
                self._make_upper(record.id, asked.mould)
                asked.watch.mark("make its folder")
            began = await self._executed(asked, Place(record.id, record.id_base), parked, ends)
            return self._runs(asked, record, began, ends)
        except BaseException as error:
            await self._fail(record, error)

    def _streams(self, wanted: Wanted, parked: Parked | None) -> Stdio:
        try:
            return Stdio(wanted)
        except BaseException as error:
            if parked:
                self.pool.drop(parked)
            _raise_as(self._explained(error), error)

    def _turn(self) -> Turn:
        return Turn(self)

    async def _created(self, creation: Creation, parked: Parked | None) -> Record:
        """Records a container before it starts; if that fails one that was parked for it goes, or its place is free."""
        try:
            return await self.commit(creation)
        except BaseException:
            if parked:
                self.pool.drop(parked)
            elif creation.was_parked:
                self.spares.give_back(Place(creation.draft.id, creation.draft.id_base))
            raise

    def _live_on(self, record: Record, process: Process, ends: Stdio, timing: Timing) -> Container:
        container = Container(self, record, process, ends, timing)
        self.live[record.id] = container
        self.in_background(self._supervise, container)
        return container

    def _creation(
        self, asked: Asked, place: Place | None, *, state: State = State.STARTING, lasting: Lasting | None = None
    ) -> Creation:
        """``place``: what is on record of it. A container that is not started yet gets none, is in no engine's care."""
        starts = state is State.STARTING
        container = place.id if place else secrets.token_hex(32)
        built, name = asked.mould.built, asked.options.name
        draft = Record(
            id=container,
            name=name or names.generate(container),
            image=asked.called,
            image_id=asked.image.id,
            owner=self.owner.id if starts else "",
            state=state,
            auto_remove=not asked.keep,
            command=built.command,
            created=asked.at,
            id_base=place.id_base if place else None,
            labels=built.labels,
            stop_signal=built.stop_signal,
            cgroup_parent=built.cgroup_parent,
            options=options_as_json(asked.options),
            lasting=lasting,
            keeper=f"{self.layout.keepers}/{container}" if lasting else "",
            boot=self.journal.boot if lasting and starts else "",
            health=HealthState() if lasting and lasting.health and starts else None,
        )
        leases = starts and asked.mould.leases_ids and not place
        return Creation(draft, asked.cause, leases=leases, was_parked=place is not None, named=bool(name))

    def _runs(
        self, asked: Asked, record: Record, began: Began, ends: Stdio, creation: Creation | None = None
    ) -> Container:
        """``creation``: what has not been recorded yet."""
        process, report, steps = began
        try:
            ends.use_terminal(process.take_terminal())
            timing = asked.watch.timing(steps, report)
            record = self._starts(record, process, timing, asked.cause, creation)
        except BaseException:
            process.close()
            raise
        return self._live_on(record, process, ends, timing)

    async def _executed(
        self,
        asked: Asked,
        place: Place,
        parked: Parked | None,
        ends: Stdio,
        meanwhile: Callable[[], object] = bytes,
    ) -> Began:
        """``meanwhile`` is called once a keeper knows of it."""
        mould = asked.mould
        if parked:
            try:
                return *await self.wake(parked, ends, meanwhile=meanwhile), parked.frame.steps
            except KeeperLost as lost:
                if not lost.untouched:
                    raise
                await self._clear_for_another(place, mould)
                self._make_upper(place.id, mould)
        compiled = partial(self._compile, mould, place, asked.watch)
        limit = asked.options.limits.time
        return *await self.execute(compiled, ends, limit, meanwhile=meanwhile), mould.steps

    def _make_upper(self, container: str, mould: Mould) -> None:
        if mould.built.upper == "directory":
            _native.make_upper(self.layout.folder(container))

    async def _clear_for_another(self, place: Place, mould: Mould) -> None:
        """A parked container was killed in the moment before it was woken: makes room for another in its place."""
        await debris.clear_cgroups(place.id, mould.built.cgroup_parent)
        await self.janitor.remove_folders([place.id])

    def _compile(self, mould: Mould, place: Place, watch: Stopwatch) -> _native.Plan:
        plan = mould.plan(place.id, place.id_base)
        for peer in mould.peers:
            # It still lives, so that what was opened was its own and not that of a later process of the same number.
            self._peer(peer)
        mould.steps = mould.steps or steps_of(plan)
        watch.mark("compile the plan")
        return plan

    def _starts(
        self, record: Record, process: Process, timing: Timing, cause: str, creation: Creation | None = None
    ) -> Record:
        """Has a start recorded soon, after its ``creation`` if that is not on record; returns the record to come."""
        begun = Begun(process.pid, process.started, timing, cause)

        def change(transaction: Transaction) -> None:
            self._start(transaction, creation(transaction) if creation else record, begun)

        self.journal.soon(change)
        return msgspec.structs.replace(record, state=State.RUNNING, pid=begun.pid, started=begun.at)

    async def _started(self, record: Record, process: Process, timing: Timing, cause: str) -> Record:
        begun = Begun(process.pid, process.started, timing, cause)
        return await self.commit(lambda transaction: self._start(transaction, record, begun))

    @staticmethod
    def _start(transaction: Transaction, record: Record, begun: Begun) -> Record:
        after = transaction.move(record, Verb.STARTED, pid=begun.pid, started=begun.at)
        if not record.auto_remove:
            transaction.keep_timing(record, begun.timing)
        started = ContainerStarted(
            container=record.id, name=record.name, image=record.image, pid=begun.pid, cause=begun.cause
        )
        transaction.emit(started, at=begun.at)
        return after

    async def _fail(self, record: Record, raised: BaseException) -> NoReturn:
        """Records a start that failed, and raises the error as the caller is to see it."""
        error = self._explained(raised)
        if isinstance(raised, KeeperLost):
            # Its keeper was killed, and has not cleaned up.
            await debris.clear_cgroups(record.id, record.cgroup_parent)
        sentence = str(error) if isinstance(error, PyrtError) else type(error).__name__

        def change(transaction: Transaction) -> Record:
            after = transaction.move(record, Verb.FAIL, error=sentence)
            transaction.release(after)
            transaction.emit(ContainerFailed(container=record.id, name=record.name, image=record.image, error=sentence))
            if after.auto_remove:
                return transaction.move(after, Verb.REMOVE)
            return transaction.own(after, "")

        await self.settle(change, record)
        _raise_as(error, raised)

    def _explained(self, error: BaseException) -> BaseException:
        """The error as the caller is to see it."""
        if failure := out_of_descriptors(error, len(self.live)):
            return failure
        if isinstance(error, OSError):
            where = f": {error.filename}" if error.filename else ""
            return StateError(f"the container's files can't be made: {error.strerror}{where}")
        return error

    async def _supervise(self, container: Container) -> None:
        try:
            await container.attend(lambda status: self._exited(container, status), self.record_now)
            await self._clear(container)
        finally:
            # Whatever goes wrong: nobody is to wait for it for ever, and the folder is the last to go.
            del self.live[container.id]
            if not container.released:
                await self.ended(container.record)
            container.left.set()

    async def _clear(self, container: Container) -> None:
        if container.status and container.status.verdict is Verdict.LOST:
            # Its keeper was killed, and has not cleaned up.
            await debris.clear_cgroups(container.id, container.record.cgroup_parent)
        if not container.released:
            if container.record.keeper:
                # Usually it has done so itself; not if it was killed after it had told the end.
                keepers.forget(Path(container.record.keeper))
            if container.record.state is not State.REMOVING:
                Groups(container.id, container.record.cgroup_parent).remove_left()

    async def ended(self, record: Record) -> None:
        """What follows the end of a container, once nothing of it runs."""
        self.janitor.discard(record)

    async def _exited(self, container: Container, status: ExitStatus) -> ExitStatus:
        def change(transaction: Transaction) -> Record:
            return end(transaction, container.record, status, container.cause, self.owner.id)

        try:
            container.record = await self.commit(change)
        except StateError:
            # A full disk, most likely: whoever waits is told nevertheless.
            self.owe(change, container.record)
        return container.record.status or status


@final
class Turn:
    """Lets AT_ONCE starts in at a time, for the time of a block; without a checkpoint if there is room.

    Nobody removes a layer meanwhile: from when an image is found until its container holds the layers.
    """

    def __init__(self, engine: Starting) -> None:
        self._engine = engine
        self._pin = engine.store.pinned()

    async def __aenter__(self) -> None:
        engine = self._engine
        try:
            engine.turns.acquire_nowait()
        except trio.WouldBlock:
            await engine.turns.acquire()
        try:
            engine.require_open()
            self._pin.__enter__()
        except BaseException as error:
            engine.turns.release()
            _raise_as(engine._explained(error), error)

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        engine = self._engine
        self._pin.__exit__(None, None, None)
        engine.turns.release()
        if isinstance(error, StateError) and (failure := out_of_descriptors(error, len(engine.live))):
            raise failure from error


def _raise_as(error: BaseException, raised: BaseException) -> NoReturn:
    """Raises ``error``, of which ``raised`` is the cause unless it is the same."""
    if error is raised:
        raise raised
    raise error from raised


def check_name(options: RunOptions) -> None:
    """Raises UsageError if a container is to have a name that can't be one."""
    if options.name:
        names.check(options.name)


def called_by(image: str | Image, found: Image) -> str:
    """What an image is to be called that was asked for as ``image``."""
    return image if isinstance(image, str) else familiar_name(found)


def end(transaction: Transaction, record: Record, status: ExitStatus, cause: str, owner: str) -> Record:
    """Records the end of a container, and what its restart policy makes of it; returns its record.

    ``owner`` is the engine that has something to do for it afterwards.
    """
    # Others may have renamed or stopped it since we looked.
    record = transaction.current(record.id) or record
    if record.state is State.STARTING:
        return _lose(transaction, record, status, cause, owner)
    asked = transaction.asked(record.id)
    final = asked_for(status, asked)
    if record.auto_remove:
        after = transaction.move(record, Verb.VANISH, status=final, owner=owner)
    else:
        stopped = record.stopped or record.state is State.STOPPING or bool(asked & {record.stop_signal, SIGKILL})
        after = transaction.move(record, Verb.EXIT, status=final, owner="", stopped=stopped)
    transaction.release(after)
    for event in _of_the_end(after, final, cause):
        transaction.emit(event, at=final.finished)
    if after.lasting and after.state is State.EXITED and _comes_back(after, after.lasting, final):
        after = transaction.move(after, Verb.AWAIT_RESTART, owner=owner, **_next_try(after, final))
    return after


def _lose(transaction: Transaction, record: Record, status: ExitStatus, cause: str, owner: str) -> Record:
    """It was being started when its engine died, and nothing of it was ever seen."""
    after = transaction.move(record, Verb.LOSE, status=status, owner=owner if record.auto_remove else "")
    transaction.release(after)
    for event in _of_the_end(after, status, cause):
        transaction.emit(event, at=status.finished)
    return transaction.move(after, Verb.REMOVE) if after.auto_remove else after


def _comes_back(record: Record, lasting: Lasting, status: ExitStatus) -> bool:
    return lasting.restart.wants(status.exit_code, record.restarts, stopped=record.stopped)


def next_failed_try(record: Record) -> dict[str, object] | None:
    """What changes in the record of a container whose restart failed; None if it is not to be tried again."""
    restart = record.lasting.restart if record.lasting else None
    if restart is None or not restart.wants(_FAILED, record.restarts, stopped=record.stopped):
        return None
    return {"restarts": record.restarts + 1, "backoff": min(2 * (record.backoff or BACKOFF_FIRST), BACKOFF_LONGEST)}


def _next_try(record: Record, status: ExitStatus) -> dict[str, object]:
    steady = status.duration >= STEADY
    backoff = BACKOFF_FIRST if steady or not record.backoff else min(2 * record.backoff, BACKOFF_LONGEST)
    return {"restarts": record.restarts + 1, "backoff": backoff}


def _of_the_end(record: Record, status: ExitStatus, cause: str) -> Iterator[ContainerEvent]:
    """What is told when a container has ended."""
    if status.oom_kills:
        yield ContainerOutOfMemory(
            container=record.id, name=record.name, image=record.image, kills=status.oom_kills, cause=cause
        )
    yield ContainerExited(
        container=record.id,
        name=record.name,
        image=record.image,
        verdict=status.verdict,
        exit_code=status.exit_code,
        code=status.code,
        signal=status.signal,
        cause=cause,
    )
