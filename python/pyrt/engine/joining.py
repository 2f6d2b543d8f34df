"""Handing plans to keepers, and the processes that join a running container, which may be another engine's."""

from __future__ import annotations

import logging
import os
import secrets
import time as clock
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from pyrt import _native
from pyrt.engine import debris
from pyrt.engine.container import Execution
from pyrt.engine.container_verbs import ContainerVerbs
from pyrt.engine.pipes import Stdio, Wanted
from pyrt.engine.process import Process
from pyrt.engine.recipe import Recipes, make_exec_options, options_of
from pyrt.engine.results import Completed
from pyrt.engine.spawner import control_pair
from pyrt.engine.states import State
from pyrt.engine.stopwatch import Stopwatch, steps_of
from pyrt.errors import EngineError, IllegalTransition, StateError, UsageError
from pyrt.runtime.spec import PEER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import trio

    from pyrt.engine.container import Container
    from pyrt.engine.events import Event
    from pyrt.engine.journal import Transaction
    from pyrt.engine.keepers import Doors
    from pyrt.engine.layout import Layout
    from pyrt.engine.pool import Parked
    from pyrt.engine.record import Record
    from pyrt.engine.results import ExitStatus

log = logging.getLogger("pyrt.engine")


class Joining(ContainerVerbs):
    """The engine's `exec`, and what it has in common with a start."""

    def __init__(self, layout: Layout, nursery: trio.Nursery, *, kept_events: int) -> None:
        super().__init__(layout, nursery, kept_events=kept_events)
        self.recipes = Recipes(layout, self._peer, self._donor)

    def _peer(self, container: str) -> int:
        """The first process of a container that runs; it is looked at again once its namespaces are opened."""
        record = self.journal.get(container)
        if record.state not in (State.RUNNING, State.PAUSED) or not debris.is_in_container(record.pid, record.id):
            raise IllegalTransition(f"container {record.name} does not run: there is no namespace to share")
        return record.pid

    def _donor(self, container: str, userns: str) -> int | None:
        """The same where its /dev/shm is to be shared with its ipc namespace; None where it can't be."""
        record = self.journal.get(container)
        if (theirs := options_of(record).ipc) == "host" or theirs.startswith(PEER):
            raise UsageError(
                f"container {record.name} shares the ipc namespace of another, and has none of its own to share",
                hint=f"name that one: {theirs}",
            )
        if userns == "host" and record.id_base is not None:
            return None  # Who is nobody in its user namespace can't make files there (EOVERFLOW).
        return self._peer(container)

    async def execute(
        self,
        compiled: Callable[[], _native.Plan],
        ends: Stdio | Doors,
        limit: float | None,
        last_words: Callable[[], bytes] = bytes,
        *,
        meanwhile: Callable[[], object] = bytes,
    ) -> tuple[Process, _native.Started]:
        """Hands a plan to a keeper and waits until its program is executed; raises what went wrong.

        The keeper kills it after ``limit`` seconds. ``last_words``: see ``Process``. ``meanwhile`` is called while a
        keeper is at work.
        """
        ours, theirs = control_pair()
        process = Process(ours, last_words)
        try:
            with theirs:
                await self._send(compiled(), theirs.fileno(), ends, limit)
            ends.sent()
            meanwhile()
            return process, await self._begun(process, compiled)
        except EngineError as error:
            process.close()
            raise await self.spawner.failure() or error from None
        except BaseException:
            process.close()
            raise

    async def wake(
        self,
        parked: Parked,
        ends: Stdio | Doors,
        last_words: Callable[[], bytes] = bytes,
        *,
        meanwhile: Callable[[], object] = bytes,
    ) -> tuple[Process, _native.Started]:
        """The same with a container of which all but the command is made; ``ends`` stay whole if that fails."""
        process = parked.process
        try:
            process.wake(*ends.late_message(parked.command), last_words)
            meanwhile()
            report = await self._begun(process, lambda: _native.compile(*parked.documents()))
            ends.sent()
            return process, report
        except BaseException:
            process.close()
            raise

    async def _begun(self, process: Process, compiled: Callable[[], _native.Plan]) -> _native.Started:
        report = await process.begin()
        if isinstance(report, _native.Failed):
            raise _native.failure(compiled(), report)
        return report

    async def _send(self, plan: _native.Plan, control: int, ends: Stdio | Doors, limit: float | None) -> None:
        """Sends a plan and lets it go at once, while the message holds what it has opened.

        The last to close a detached mount waits for an RCU grace period, milliseconds: that is to be the keeper.
        """
        try:
            message, descriptors = ends.message(plan, control, limit)
            await self.spawner.send(message, descriptors)
        finally:
            # An error's traceback would go on holding it.
            del plan

    async def complete(self, attended: Container | Execution, stdin: bytes, max_output: int) -> Completed:
        """Feeds a process that was just started, collects what it writes, and waits for its end; else kills it."""
        try:
            output = await attended.communicate(stdin, max_output=max_output)
        except BaseException:
            await attended.destroy("cancelled")
            raise
        attended.close_streams()
        return Completed(
            id=attended.id,
            stdout=output.stdout,
            stderr=output.stderr,
            status=output.status,
            lost_output=output.lost,
            timing=attended.timing,
        )

    async def exec(
        self,
        container: str,
        command: Sequence[str],
        *,
        stdio: tuple[int, int, int] | None = None,
        wants_stdin: bool = True,
        take_ends: Callable[[int, int, int], object] | None = None,
        time: float | None = None,
        **options: Any,
    ) -> Execution:
        """Starts another process in a running container, which may be another engine's; see ``start`` for streams.

        ``time`` is its limit in seconds, ``options`` are the fields of ``ExecOptions``. Raises IllegalTransition if the
        container does not run, CommandNotFound and its kin, UsageError.
        """
        self.require_open()
        asked = make_exec_options(command, **options)
        watch = Stopwatch()
        record = self.journal.get(container)
        image = self.recipes.image(self.store.find, record.image_id)
        wanted = Wanted(stdio, wants_stdin and not asked.tty, None if asked.tty else take_ends)
        with self._pidfd(record) as pidfd, Stdio(wanted) as ends:
            steps: list[tuple[tuple[str, str], ...]] = []

            def compiled() -> _native.Plan:
                plan = self.recipes.joining_plan(image, record, asked, pidfd)
                steps.append(steps_of(plan))
                return plan

            process, report = await self.execute(compiled, ends, time)
            timing = watch.timing(steps[0], report)
            ends.use_terminal(process.take_terminal())
        execution = Execution(secrets.token_hex(32), record, asked.command, process, ends, timing)
        self.executions.add(execution)
        self.in_background(self._supervise_execution, execution)
        return execution

    async def _supervise_execution(self, execution: Execution) -> None:
        async def record(status: ExitStatus) -> ExitStatus:
            await self._tell_safely(execution.exited_event(status))
            return status

        try:
            self.journal.soon(partial(_tell, execution.started_event(), clock.time_ns()))
            await execution.attend(record, self.record_now)
        finally:
            self.executions.discard(execution)
            execution.left.set()

    async def _tell_safely(self, event: Event) -> None:
        try:
            await self.tell(event)
        except StateError:
            log.exception("an event could not be recorded")

    @contextmanager
    def _pidfd(self, record: Record) -> Iterator[int]:
        """A pidfd of PID 1 of a running container, for the time of the block."""
        mine = self.live.get(record.id)
        runs = record.state in (State.RUNNING, State.STOPPING)
        if mine and mine.status is None and runs:
            yield mine.pidfd
            return
        pidfd = debris.open_pidfd(record.pid, record.id) if runs else None
        if pidfd is None:
            raise IllegalTransition(f"container {record.name} is {record.state}: nothing can be executed in it")
        try:
            yield pidfd
        finally:
            os.close(pidfd)


def _tell(event: Event, at: int, transaction: Transaction) -> None:
    transaction.emit(event, at=at)
