"""The engine's verbs on containers that are recorded, whichever engine supervises them.

What runs under another engine of the same state root is reached by its process id, verified by its cgroup.
"""

from __future__ import annotations

import logging
import math
import os
import signal as signals
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from pyrt import _native
from pyrt.engine import debris, names, processes
from pyrt.engine.cgroups import Groups
from pyrt.engine.events import ContainerExited, ContainerRenamed, ContainerSignaled, ContainerUnpaused
from pyrt.engine.image_verbs import ImageVerbs
from pyrt.engine.recipe import options_of
from pyrt.engine.results import ExitStatus, Timing, Verdict
from pyrt.engine.states import LIVE, State, Verb
from pyrt.errors import ContainerNotFound, EngineError, IllegalTransition, StateError, UsageError
from pyrt.runtime.signals import parse_signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrt.engine.journal import Transaction
    from pyrt.engine.record import Record


log = logging.getLogger("pyrt.engine")

STOP_TIMEOUT: Final = 10.0
"""Seconds from the stop signal to SIGKILL, for a container that was given no time of its own."""
_LOOK_AFTER: Final = 0.4
"""Seconds after SIGKILL, and again after as many, when it is looked at what does not die."""


class ContainerVerbs(ImageVerbs):
    """Looking at containers, signalling, stopping, renaming and removing them."""

    def containers(self) -> list[Record]:
        """All containers that are recorded, the newest first."""
        return self.journal.records()

    def inspect(self, container: str) -> Record:
        """The container of this name, id, or unique beginning of an id; raises ContainerNotFound."""
        return self.journal.get(container)

    def timing(self, container: str) -> Timing:
        """What the steps of its last start took; of what is removed at its end only the engine that runs it knows.

        Empty if it never ran.
        """
        record = self.journal.get(container)
        mine = self.live.get(record.id)
        return mine.timing if mine else self.journal.timing(record.id)

    async def kill(self, container: str, signal: int | str = signals.SIGKILL) -> None:
        """Sends PID 1 of a container a signal; does not wait. Raises IllegalTransition if it does not run."""
        await self._signal(self.journal.get(container), parse_signal(signal), "kill")

    async def stop(
        self,
        container: str,
        timeout: float | None = None,  # noqa: ASYNC109 - docker's word
        *,
        signal: int | str | None = None,
    ) -> ExitStatus:
        """Sends the stop signal, SIGKILL ``timeout`` seconds later if that did not end it, and waits for the end.

        ``timeout``: None is the container's own (``stop_timeout``), or 10; below 0 is for ever. ``signal``: another
        than its stop signal. One that has ended already is left as it is; one that is to be restarted is not. Raises
        EngineError if a process hangs in the kernel, of which not even SIGKILL frees it.
        """
        record = self.journal.get(container)
        if timeout is None:
            own = options_of(record).stop_timeout
            timeout = STOP_TIMEOUT if own is None else own
        number = record.stop_signal if signal is None else parse_signal(signal)
        if record.state is State.RESTARTING:
            with suppress(IllegalTransition):
                record = await self.commit(lambda transaction: transaction.move(record, Verb.GIVE_UP, stopped=True))
            record = self.journal.get(record.id)
        if record.state not in LIVE:
            return await self.wait(record.id)
        if record.state is not State.STOPPING:
            record = await self._stopping(record)
        with trio.move_on_after(timeout if timeout >= 0 else math.inf), suppress(IllegalTransition):
            await self._signal(record, number, "stop")
            return await self._wait_for(record)
        with suppress(IllegalTransition):
            await self._signal(record, signals.SIGKILL, "stop")
        return await self._death_of(record)

    async def wait(self, container: str) -> ExitStatus:
        """Waits until a container has ended. Raises ContainerNotFound, also if it was removed before it was seen."""
        return await self._wait_for(self.journal.get(container))

    async def rename(self, container: str, name: str) -> Record:
        """Gives a container another name; raises NameInUse, UsageError."""
        names.check(name)
        record = self.journal.get(container)

        def change(transaction: Transaction) -> Record:
            # Others may have done something with it since we looked.
            before = transaction.current(record.id)
            if before is None:
                raise ContainerNotFound(f"no container {container}")
            if before.name == name:
                raise UsageError(f"the container is called {name} already", hint="take another name")
            after = transaction.rename(before, name)
            transaction.emit(
                ContainerRenamed(container=record.id, name=name, image=record.image, before=before.name, cause="rename")
            )
            return after

        after = await self.commit(change)
        if mine := self.live.get(record.id):
            mine.record = after
        return after

    async def remove(self, container: str, *, force: bool = False) -> None:
        """Removes all that is left of a container; with ``force`` it is killed first.

        Returns when nothing is left. Raises IllegalTransition if it runs, ContainerNotFound.
        """
        record = self.journal.get(container)
        if force and record.state in LIVE:
            await self._end(record)
            try:
                record = self.journal.get(record.id)
            except ContainerNotFound:
                return  # It was to be removed at its end anyway.
        if record.state is not State.REMOVING:
            record = await self._record_removal(record)
        self.janitor.discard(record)
        await self.janitor.settled()

    async def _record_removal(self, record: Record) -> Record:
        """On a disk that is full there is room for that only when what the container has written is gone."""
        if not self.owes(record.id):
            try:
                return await self.commit(partial(self._removing, record))
            except StateError:
                if record.state in LIVE:
                    raise
        await self.in_thread(self._empty, record)
        await self.pay()
        if self.owes(record.id):
            raise StateError(f"the end of container {record.name} can't be recorded: the disk is full")
        return await self.commit(partial(self._removing, self.journal.get(record.id)))

    def _empty(self, record: Record) -> None:
        """Removes what a container that has ended has written, but not what tells its end."""
        folder = os.open(self.layout.folder(record.id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in os.listdir(folder):
                if name != "exit":
                    _native.remove_tree(folder, name)
        finally:
            os.close(folder)

    async def prune_containers(self, wanted: Callable[[Record], bool] = lambda record: True) -> list[Record]:
        """Removes every container that does not run and is ``wanted``; returns what was removed."""
        removed = []
        for record in filter(wanted, self.journal.records()):
            try:
                moved = await self.commit(partial(self._removing, record))
            except (IllegalTransition, ContainerNotFound):
                continue
            self.janitor.discard(moved)
            removed.append(record)
        await self.janitor.settled()
        return removed

    def _removing(self, record: Record, transaction: Transaction) -> Record:
        return transaction.move(record, Verb.REMOVE, owner=self.owner.id)

    async def _stopping(self, record: Record) -> Record:
        try:
            after = await self.commit(lambda transaction: transaction.move(record, Verb.STOP, stopped=True))
        except (StateError, IllegalTransition):
            return record  # The disk is full, which keeps nobody from stopping a container; or it has just ended.
        if mine := self.live.get(record.id):
            mine.record = after
        return after

    async def _wait_for(self, record: Record) -> ExitStatus:
        cursor = self.journal.span()[1]
        try:
            record = self.journal.get(record.id)
        except ContainerNotFound:
            return record.status or _nobody_saw()
        mine = self.live.get(record.id)
        if mine:
            return await mine.wait()
        if record.state not in LIVE:
            await trio.lowlevel.checkpoint()
            return record.status or _nobody_saw()
        async for event in self.events(cursor):
            if isinstance(event, ContainerExited) and event.container == record.id:
                return _status_of(event)
        raise EngineError("the engine was closed")

    async def _end(self, record: Record) -> None:
        """SIGKILL, and the end of the clean-up."""
        if mine := self.live.get(record.id):
            if record.lasting:
                # Nobody is to start it again.
                await self._note_signal(record, signals.SIGKILL)
            mine.signal(signals.SIGKILL, "remove")
            await self._death_of(record)
            await mine.destroy("remove")
            return
        with suppress(IllegalTransition):
            await self._signal(record, signals.SIGKILL, "remove")
        await self._death_of(record)

    async def _death_of(self, record: Record) -> ExitStatus:
        """Waits for the end of a container that was sent SIGKILL. Raises EngineError if one of its processes waits for
        something in the kernel and does not die: a file system that is frozen, or a server that is gone."""
        groups = Groups(record.id, record.cgroup_parent)
        before: set[processes.Hanging] = set()
        while True:
            with trio.move_on_after(_LOOK_AFTER):
                return await self._wait_for(record)
            now = set(await self.in_thread(lambda: processes.hanging(groups.processes())))
            for process in sorted(now & before):
                raise EngineError(
                    f"container {record.name} was killed, and does not end: {process}",
                    hint="it ends as soon as what that waits for does: a file system that is frozen or out of reach?",
                )
            before = now

    async def _signal(self, record: Record, number: int, cause: str) -> None:
        mine = self.live.get(record.id)
        if mine and record.lasting:
            await self._note_signal(record, number)
        sent = mine.signal(number, cause) if mine else await self._signal_elsewhere(record, number)
        if not sent:
            raise IllegalTransition(f"container {record.name} does not run", hint="pyrt ps -a shows its state")
        if number in {signals.SIGKILL, record.stop_signal}:
            await self._thaw(record)
        event = ContainerSignaled(container=record.id, name=record.name, image=record.image, signal=number, cause=cause)
        try:
            await self.tell(event)
        except StateError:
            log.exception("a signal to container %s can't be recorded", record.name)

    async def _note_signal(self, record: Record, number: int) -> None:
        """Before it is sent: whichever engine records the end is to know on whose behalf it came."""
        try:
            await self.commit(lambda transaction: transaction.note_signal(record.id, number))
        except StateError:
            log.exception("a signal to container %s can't be recorded", record.name)

    async def _thaw(self, record: Record) -> None:
        """What is paused can't die, and does not hear that it is to stop: as Docker does it, that ends the pause."""
        Groups(record.id, record.cgroup_parent).thaw()
        if record.state is not State.PAUSED:
            return

        def change(transaction: Transaction) -> Record:
            after = transaction.move(record, Verb.UNPAUSE)
            told = ContainerUnpaused(container=record.id, name=record.name, image=record.image, cause="signal")
            transaction.emit(told)
            return after

        with suppress(IllegalTransition, ContainerNotFound):  # It has ended of the signal already.
            after = await self.commit(change)
            if mine := self.live.get(record.id):
                mine.record = after

    async def _signal_elsewhere(self, record: Record, number: int) -> bool:
        pidfd = debris.open_pidfd(record.pid, record.id) if record.state in LIVE and record.pid else None
        if pidfd is None:
            return False
        try:
            await self._note_signal(record, number)
            signals.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(pidfd)
        return True


def _nobody_saw() -> ExitStatus:
    return ExitStatus(verdict=Verdict.LOST)


def _status_of(event: ContainerExited) -> ExitStatus:
    return ExitStatus(verdict=event.verdict, code=event.code, signal=event.signal, finished=event.time)
