"""Containers that outlive their engine: made, started again, adopted, and restarted as their policy has it.

::

    create --> created -- launch --> starting --> running --> exited
                             ^           engine gone: the keeper carries on; the next engine
    run_detached: both at once          adopts it, or reads the exit that it has left written

What is between two of these steps when an engine is killed is found by the next: the record says ``starting`` before
anything is made, and the keeper's socket, or the exit in the container's folder, says what became of it.
"""

from __future__ import annotations

import logging
import os
import signal as signals
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from pyrt.engine import debris, keepers
from pyrt.engine.cgroups import Groups
from pyrt.engine.container import Container
from pyrt.engine.events import ContainerFailed, ContainerUnpaused
from pyrt.engine.health import watch_health
from pyrt.engine.lasting import USUAL
from pyrt.engine.pipes import NOBODYS, Stdio, Wanted
from pyrt.engine.process import KeeperLost, Process
from pyrt.engine.recipe import options_of
from pyrt.engine.record import HealthState
from pyrt.engine.results import Timing, Verdict
from pyrt.engine.spares import Place
from pyrt.engine.spawner import receive
from pyrt.engine.starting import Asked, Starting, called_by, check_name, end, next_failed_try
from pyrt.engine.states import LIVE, State, Verb
from pyrt.engine.stopwatch import Stopwatch
from pyrt.engine.verdict import status_of
from pyrt.errors import ContainerNotFound, IllegalTransition, PyrtError

if TYPE_CHECKING:
    import socket

    from pyrt import _native
    from pyrt.engine.journal import Transaction
    from pyrt.engine.lasting import Lasting
    from pyrt.engine.layout import Layout
    from pyrt.engine.pool import Parked
    from pyrt.engine.recipe import Mould
    from pyrt.engine.record import Record
    from pyrt.engine.results import ExitStatus
    from pyrt.engine.stopwatch import Steps
    from pyrt.images.image import Image
    from pyrt.runtime.options import RunOptions

log = logging.getLogger("pyrt.engine")


class Detaching(Starting):
    """The engine's verbs on containers that last."""

    def __init__(self, layout: Layout, nursery: trio.Nursery, *, kept_events: int, warm: int) -> None:
        super().__init__(layout, nursery, kept_events=kept_events, warm=warm)
        self._coming_back = 0

    def has_work(self) -> bool:
        """Whether a container is in this engine's care: one that runs, or that it is to start again."""
        return bool(self.live or self._coming_back)

    async def create(
        self,
        image: str | Image,
        options: RunOptions,
        lasting: Lasting = USUAL,
        *,
        keep: bool = True,
        asked: str = "",
        cause: str = "create",
    ) -> Record:
        """Records a container and makes its folder; ``launch`` starts it. Not ``keep``: it is removed at its end.

        Raises ImageNotFound, UsageError, NameInUse.
        """
        self.require_open()
        check_name(options)
        async with self._turn():
            found = self.recipes.image(self.find_image, image)
            mould = self.recipes.mould(found, options, keep=keep)
            called = asked or called_by(image, found)
            request = Asked(found, called, mould, options, keep, cause, Stopwatch(), time.time_ns())
            record = await self.commit(self._creation(request, None, state=State.CREATED, lasting=lasting))
            self._make_folder(record, mould)
        return record

    async def run_detached(
        self,
        image: str | Image,
        options: RunOptions,
        lasting: Lasting = USUAL,
        *,
        keep: bool = True,
        asked: str = "",
        cause: str = "run",
    ) -> Record:
        """Starts a container that lives until it ends by itself or is ended; returns once its command is executed.

        What it writes is in its log. Not ``keep``: it is removed at its end. Raises as ``start`` does.
        """
        self.require_open()
        watch = Stopwatch()
        check_name(options)
        async with self._turn():
            found = self.recipes.image(self.find_image, image)
            watch.mark("find the image")
            mould = self.recipes.mould(found, options, keep=keep)
            watch.mark("make the specification")
            called = asked or called_by(image, found)
            request = Asked(found, called, mould, options, keep, cause, watch, time.time_ns())
            parked = self.pool.take(mould)
            place = parked.place if parked else self.spares.take(mould)
            record = await self._created(self._creation(request, place, lasting=lasting), parked)
            watch.mark("record it")
            return await self._detach(record, mould, options, watch, cause, parked)

    async def launch(self, container: str, *, cause: str = "start") -> Record:
        """Starts a container that was created, or that has ended; one that runs is left as it is.

        Raises IllegalTransition, ContainerNotFound, StartFailed and its kin.
        """
        record = self.journal.get(container)
        if record.state in LIVE:
            await trio.lowlevel.checkpoint()
            return record
        return await self._launch_again(record, cause)

    async def restart(
        self,
        container: str,
        timeout: float | None = None,  # noqa: ASYNC109 - docker's word
        *,
        signal: int | str | None = None,
    ) -> Record:
        """Stops a container as ``stop`` does, if it runs, and starts it again."""
        record = self.journal.get(container)
        if record.auto_remove:
            raise IllegalTransition(f"container {record.name} is removed at its end: it can't be started again")
        await self.stop(record.id, timeout, signal=signal)
        return await self.launch(record.id, cause="restart")

    async def _launch_again(
        self, record: Record, cause: str, *, restarts: int = 0, backoff: float = 0.0, awaited: bool = False
    ) -> Record:
        """``awaited``: it is to be in state ``restarting`` still."""
        self.require_open()
        watch = Stopwatch()
        options = options_of(record)
        if former := self.live.get(record.id):
            await former.left.wait()
        await keeper_gone(record)
        # Before the record says that it starts: an exit that is found then is this run's.
        keepers.forget_exit(self.layout.folder(record.id))

        def change(transaction: Transaction) -> Record:
            transaction.forget_signals(record.id)
            current = transaction.current(record.id) or record
            if awaited and current.state is not State.RESTARTING:
                raise IllegalTransition(f"container {record.name} was stopped")
            return transaction.move(
                current,
                Verb.START,
                owner=self.owner.id,
                pid=0,
                status=None,
                error="",
                id_base=transaction.lease(record.id) if mould.leases_ids else None,
                lasting=current.lasting or USUAL,
                keeper=f"{self.layout.keepers}/{record.id}",
                boot=self.journal.boot,
                restarts=restarts,
                backoff=backoff,
                stopped=False,
                health=HealthState() if current.lasting and current.lasting.health else None,
            )

        async with self._turn():
            image = self.recipes.image(self.find_image, record.image_id)
            watch.mark("find the image")
            mould = self.recipes.mould(image, options, keep=not record.auto_remove)
            watch.mark("make the specification")
            record = await self.commit(change)
            watch.mark("record it")
            return await self._detach(record, mould, options, watch, cause)

    async def _detach(
        self,
        record: Record,
        mould: Mould,
        options: RunOptions,
        watch: Stopwatch,
        cause: str,
        parked: Parked | None = None,
    ) -> Record:
        try:
            process, report, steps = await self._kept(record, mould, options, watch, parked)
            try:
                timing = watch.timing(steps, report)
                record = await self._started(record, process, timing, cause)
            except BaseException:
                process.signal(signals.SIGKILL)
                process.close()
                raise
        except BaseException as error:
            await self._fail(record, error)
        self._look_after(record, process, timing)
        return record

    async def _kept(
        self, record: Record, mould: Mould, options: RunOptions, watch: Stopwatch, parked: Parked | None
    ) -> tuple[Process, _native.Started, Steps]:
        """Has a keeper that lasts execute its command."""
        last_words = partial(keepers.read_exit, self._make_folder(record, mould))
        watch.mark("make its folder")
        if parked:
            try:
                with keepers.doors(self.layout, record) as ends:
                    return *await self.wake(parked, ends, last_words), parked.frame.steps
            except KeeperLost as lost:
                if not lost.untouched:
                    raise
                await self._clear_for_another(Place(record.id, record.id_base), mould)
                self._make_folder(record, mould)
        with keepers.doors(self.layout, record) as ends:
            compiled = partial(self._compile, mould, Place(record.id, record.id_base), watch)
            return *await self.execute(compiled, ends, options.limits.time, last_words), mould.steps

    def _make_folder(self, record: Record, mould: Mould) -> str:
        folder = self.layout.folder(record.id)
        if not os.path.isdir(folder):
            self._make_upper(record.id, mould)
            if mould.built.upper != "directory":
                os.mkdir(folder, 0o700)
        return folder

    def _look_after(self, record: Record, process: Process, timing: Timing) -> None:
        container = Container(self, record, process, Stdio(Wanted(NOBODYS)), timing)
        self.live[record.id] = container
        self.in_background(self._supervise, container)
        if record.lasting and record.lasting.health:
            self.in_background(watch_health, self, container, record.lasting.health)

    # ---- after an engine's death, or the end ----

    def adopt(self, record: Record) -> bool:
        """Goes to the keeper of a container that is in our care now; False if there is none any more."""
        connection = keepers.connect(keeper_of(record))
        if connection is None:
            return False
        if record.state is State.RUNNING:
            # Its engine may have been killed between the freezer and the journal.
            Groups(record.id, record.cgroup_parent).thaw()
        self.in_background(self._adopt, record, connection)
        return True

    async def _adopt(self, record: Record, connection: socket.socket) -> None:
        process = Process(connection, partial(keepers.read_exit, self.layout.folder(record.id)))
        try:
            found = await process.resume()
        except OSError:
            # No descriptor is left. It runs on; the next engine finds it.
            process.close()
            log.exception("container %s can't be taken over", record.name)
            return
        except BaseException:
            process.close()
            raise
        if not found:
            # It was about to end: what it has left written says how.
            process.close()
            await self.bury([record])
            return
        process.started = record.started or process.started
        if record.state is State.STARTING:
            try:
                record = await self._started(record, process, Timing(), "engine died")
            except PyrtError:
                log.exception("the start of container %s can't be recorded", record.name)
        self._look_after(record, process, self.journal.timing(record.id))

    async def bury(self, records: list[Record]) -> None:
        """Records the ends of containers in our care whose keepers are gone, in the order in which they ended."""
        evidence = [
            (record, status_of(keepers.read_exit(self.layout.folder(record.id)), record.started, ()))
            for record in records
        ]
        for record, status in sorted(evidence, key=lambda pair: pair[1].finished):
            keepers.forget(keeper_of(record))
            try:
                after = await self.commit(partial(self._bury, record, status))
            except (IllegalTransition, ContainerNotFound):
                continue  # Another engine was faster.
            if status.verdict is Verdict.LOST:
                await debris.clear_cgroups(record.id, record.cgroup_parent)
            await self.ended(after)

    def _bury(self, record: Record, status: ExitStatus, transaction: Transaction) -> Record:
        cause = ""
        if status.verdict is Verdict.LOST:
            cause = "keeper died" if record.boot == self.journal.boot else "machine restarted"
        elif record.state is State.STARTING:
            record = transaction.move(record, Verb.STARTED, started=status.finished)
        return end(transaction, record, status, cause, self.owner.id)

    async def resume_boot(self) -> None:
        """Has what is to run on a machine that has just been started do so, once a boot: as other restarts, at once."""
        if self.journal.is_resumed():
            return

        def change(transaction: Transaction) -> list[Record]:
            transaction.resume_boot()
            return [
                transaction.move(
                    record, Verb.AWAIT_RESTART, owner=self.owner.id, restarts=0, backoff=0.0, stopped=False
                )
                for record in self.journal.records()
                if record.state is State.EXITED and record.boot != self.journal.boot and _wanted_after_boot(record)
            ]

        for record in await self.commit(change):
            self.in_background(self.restart_later, record, "machine restarted")

    async def ended(self, record: Record) -> None:
        if record.state is State.RESTARTING:
            self.in_background(self.restart_later, record)
        await super().ended(record)

    async def restart_later(self, record: Record, cause: str = "restart policy") -> None:
        """Starts a container in state ``restarting`` after its pause, unless somebody has stopped it by then."""
        self._coming_back += 1
        try:
            await trio.sleep(record.backoff)
            await self._launch_again(record, cause, restarts=record.restarts, backoff=record.backoff, awaited=True)
        except PyrtError as error:
            log.warning("container %s is not restarted: %s", record.name, error)
            await self._try_later(record, error)
        finally:
            self._coming_back -= 1

    async def _try_later(self, record: Record, error: PyrtError) -> None:
        """A restart that failed is one of those that its policy allows: the next comes after a longer pause."""

        def change(transaction: Transaction) -> Record | None:
            current = transaction.current(record.id)
            if current is None or current.state not in {State.FAILED, State.RESTARTING} or self.closing:
                return None
            following = next_failed_try(current)
            if current.state is State.FAILED:
                if following is None:
                    return None
                return transaction.move(current, Verb.AWAIT_RESTART, owner=self.owner.id, **following)
            # It was not even begun: its image, or a folder that it mounts, can't be found just now.
            transaction.emit(
                ContainerFailed(
                    container=current.id,
                    name=current.name,
                    image=current.image,
                    error=str(error),
                    cause="restart policy",
                )
            )
            if following is None:
                transaction.move(current, Verb.GIVE_UP, owner="", error=str(error))
                return None
            return transaction.amend(current, error=str(error), **following)

        try:
            if after := await self.commit(change):
                self.in_background(self.restart_later, after)
        except PyrtError as refused:
            log.warning("container %s is not restarted any more: %s", record.name, refused)


def _wanted_after_boot(record: Record) -> bool:
    if record.lasting is None or record.status is None:
        return False
    return record.lasting.restart.wants_after_boot(record.status.exit_code, stopped=record.stopped)


def unpaused(record: Record, cause: str, transaction: Transaction) -> Record:
    """Records that it goes on."""
    after = transaction.move(record, Verb.UNPAUSE, at_rest=False)
    transaction.emit(ContainerUnpaused(container=record.id, name=record.name, image=record.image, cause=cause))
    return after


def keeper_of(record: Record) -> Path:
    """Where the socket of its keeper lies."""
    return Path(record.keeper)


async def keeper_gone(record: Record) -> None:
    """Returns when the keeper of an earlier run has removed the cgroups: the next run makes them anew."""
    if not record.keeper:
        return
    connection = keepers.connect(keeper_of(record))
    if connection is None:
        return
    with connection:
        while (message := await receive(connection)).data:
            for descriptor in message.descriptors:
                os.close(descriptor)
