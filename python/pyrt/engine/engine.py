"""The engine: starts containers, supervises them to their ends, and leaves nothing of them behind.

::

    start:  find image -> record, lease -> folder -> spec -> plan -> spawner -> Started -> record
    then, one task a container:                     Exited -> record -> end of file -> janitor

What must be on record before the process runs is recorded before; that it has started is recorded while it runs.
"""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, final

import trio

from pyrt import _native
from pyrt.engine import debris, names
from pyrt.engine.container import DEFAULT_OUTPUT, Container, Execution
from pyrt.engine.container_verbs import ContainerVerbs
from pyrt.engine.core import out_of_descriptors
from pyrt.engine.events import (
    ContainerCreated,
    ContainerExited,
    ContainerFailed,
    ContainerOutOfMemory,
    ContainerStarted,
)
from pyrt.engine.journal import DEFAULT_KEPT, LEASE_FIRST
from pyrt.engine.layout import Layout
from pyrt.engine.pipes import Stdio
from pyrt.engine.process import Process
from pyrt.engine.recipe import Recipes, make_exec_options, options_as_json
from pyrt.engine.record import Record
from pyrt.engine.results import Completed, Verdict
from pyrt.engine.spawner import control_pair
from pyrt.engine.states import State, Verb
from pyrt.engine.stopwatch import Stopwatch, steps_of
from pyrt.engine.sweeping import sweep_for_ever, take_over
from pyrt.errors import ContainerError, IllegalTransition, PyrtError, StateError
from pyrt.runtime.options import make_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from pyrt.engine.attended import Attended
    from pyrt.engine.events import Event
    from pyrt.engine.journal import Transaction
    from pyrt.engine.recipe import Mould
    from pyrt.engine.results import ExitStatus, Timing
    from pyrt.images.image import Image
    from pyrt.runtime.options import Limits, RunOptions

log = logging.getLogger("pyrt.engine")

AT_ONCE: Final = 32
"""Containers that are being started at the same moment; more wait for their turn."""
SWEEP_EVERY: Final = 30.0
"""Seconds between two looks for what other engines left that have died meanwhile."""


@final
class Engine(ContainerVerbs):
    """Runs containers. Open one with ``open_engine``; any number may be open on one state root."""

    def __init__(self, layout: Layout, nursery: trio.Nursery, *, kept_events: int) -> None:
        super().__init__(layout, nursery, kept_events=kept_events)
        self._recipes = Recipes(layout)
        self._turns = trio.Semaphore(AT_ONCE)

    # ---- running to the end ----

    async def run(
        self,
        image: str | Image,
        command: Sequence[str] = (),
        *,
        stdin: bytes = b"",
        limits: Limits | None = None,
        max_output: int = DEFAULT_OUTPUT,
        **options: Any,
    ) -> Completed:
        """Runs a command in a new container to its end, and removes the container.

        ``command`` empty is the image's own. ``options`` are the fields of ``RunOptions``. ``limits.time`` (seconds)
        ends it with Verdict.TIMED_OUT. Of each stream the first ``max_output`` bytes are kept. Cancelled, it kills
        the container and waits until that is done. Raises ImageNotFound, UsageError, StartFailed and its kin.
        """
        container = await self.start(
            image, make_options(command, limits, **options), wants_stdin=bool(stdin), cause="run"
        )
        return await self.complete(container, stdin, max_output)

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

    @asynccontextmanager
    async def open_container(
        self, image: str | Image, command: Sequence[str] = (), *, limits: Limits | None = None, **options: Any
    ) -> AsyncIterator[Container]:
        """A running container, killed and removed at the end of the block, whatever happens in it."""
        container = await self.start(image, make_options(command, limits, **options), cause="open_container")
        try:
            yield container
        finally:
            await container.destroy("end of block")

    # ---- starting ----

    async def start(
        self,
        image: str | Image,
        options: RunOptions,
        *,
        stdio: tuple[int, int, int] | None = None,
        wants_stdin: bool = True,
        keep: bool = False,
        cause: str = "start",
    ) -> Container:
        """Starts a container and returns once its command is executed. It lives as long as the engine at most.

        ``stdio``: descriptors that become its standard input, output and error and stay the caller's; else there are
        pipes, of which that of the input is at its end unless ``wants_stdin``. With a terminal (``options.tty``)
        neither. ``keep``: record and files stay when it has ended, until ``remove``.
        The call is not cancelled between the start and its return: use ``destroy`` in a ``finally``.
        """
        self.require_open()
        watch = Stopwatch()
        found = self._recipes.image(self.store, image)
        watch.mark("find the image")
        mould = self._recipes.mould(found, options, keep=keep)
        watch.mark("make the specification")
        async with self._turn():
            record = await self._create(found, image, mould, options, keep=keep, cause=cause)
            watch.mark("record it")
            try:
                return await self._launch(record, mould, options, stdio, wants_stdin, watch, cause)
            except BaseException as error:
                failure = self._explained(error)
                await self._failed(record, failure)
                if failure is error:
                    raise
                raise failure from error

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Lets AT_ONCE starts in at a time; without a checkpoint if there is room."""
        try:
            self._turns.acquire_nowait()
        except trio.WouldBlock:
            await self._turns.acquire()
        try:
            self.require_open()
            yield
        finally:
            self._turns.release()

    async def _create(
        self, found: Image, image: str | Image, mould: Mould, options: RunOptions, *, keep: bool, cause: str
    ) -> Record:
        """A record that says what may be left if this process is killed from now on, and a lease of ids."""
        container = secrets.token_hex(32)
        name = names.check(options.name) if options.name else names.generate(container)
        built = mould.built

        def change(transaction: Transaction) -> Record:
            record = Record(
                id=container,
                name=name,
                image=image if isinstance(image, str) else (image.names or (image.id,))[0],
                image_id=found.id,
                owner=self.owner.id,
                state=State.STARTING,
                auto_remove=not keep,
                command=built.command,
                created=transaction.now,
                id_base=transaction.lease(container) if options.userns == "auto" else None,
                labels=built.labels,
                stop_signal=built.stop_signal,
                options=options_as_json(options),
            )
            transaction.insert(record)
            transaction.emit(ContainerCreated(container=container, name=name, image=record.image, cause=cause))
            return record

        return await self.commit(change)

    async def _launch(
        self,
        record: Record,
        mould: Mould,
        options: RunOptions,
        stdio: tuple[int, int, int] | None,
        wants_stdin: bool,
        watch: Stopwatch,
        cause: str,
    ) -> Container:
        with Stdio(stdio, wants_stdin=wants_stdin and not options.tty) as ends:
            if mould.built.upper == "directory":
                self.layout.make_upper(record.id)
            watch.mark("make its folder and pipes")
            documents = mould.fill(record.id, record.id_base)
            process, report = await self._execute(lambda: self._compile(mould, documents, watch), ends)
            try:
                timing = watch.timing(mould.steps, report)
                record = await self._started(record, process, timing, cause)
                ends.use_terminal(process.terminal)
            except BaseException:
                process.close()
                raise
        container = Container(self, record, process, ends, timing)
        self.live[record.id] = container
        self.nursery.start_soon(self._supervise, container, options.limits.time)
        return container

    def _compile(self, mould: Mould, documents: tuple[bytes, bytes], watch: Stopwatch) -> _native.Plan:
        plan = _native.compile(*documents)
        mould.steps = mould.steps or steps_of(plan)
        watch.mark("compile the plan")
        return plan

    async def _execute(self, compiled: Callable[[], _native.Plan], stdio: Stdio) -> tuple[Process, _native.Started]:
        """Hands a plan to a keeper and waits until its program is executed; raises what went wrong."""
        ours, theirs = control_pair()
        process = Process(ours)
        try:
            with theirs:
                await self._send(compiled(), theirs.fileno(), stdio)
            stdio.sent()
            report = await process.begin()
            if isinstance(report, _native.Failed):
                raise _native.failure(compiled(), report)
        except BaseException:
            process.close()
            raise
        return process, report

    async def _send(self, plan: _native.Plan, control: int, stdio: Stdio) -> None:
        """Sends a plan and lets it go at once, while the message holds what it has opened.

        The last to close a detached mount waits for an RCU grace period, milliseconds: that is to be the keeper.
        """
        try:
            message, descriptors = plan.start_message(True, control, *stdio.theirs)
            await self.spawner.send(message, descriptors)
        finally:
            # An error's traceback would go on holding it.
            del plan

    async def _started(self, record: Record, process: Process, timing: Timing, cause: str) -> Record:
        def change(transaction: Transaction) -> Record:
            after = transaction.move(record, Verb.STARTED, pid=process.pid, started=process.started)
            if not record.auto_remove:
                transaction.keep_timing(record, timing)
            transaction.emit(
                ContainerStarted(
                    container=record.id, name=record.name, image=record.image, pid=process.pid, cause=cause
                ),
                at=process.started,
            )
            return after

        return await self.commit(change)

    async def _failed(self, record: Record, error: BaseException) -> None:
        sentence = str(error) if isinstance(error, PyrtError) else type(error).__name__

        def change(transaction: Transaction) -> Record:
            after = transaction.move(record, Verb.FAIL, error=sentence)
            transaction.release(after)
            transaction.emit(ContainerFailed(container=record.id, name=record.name, image=record.image, error=sentence))
            if after.auto_remove:
                return transaction.move(after, Verb.REMOVE)
            return transaction.own(after, "")

        try:
            self._discard(await self.commit(change))
        except (StateError, ContainerError):
            log.exception("the failed start of container %s could not be recorded", record.name)

    def _explained(self, error: BaseException) -> BaseException:
        """The error as the caller is to see it."""
        if failure := out_of_descriptors(error, len(self.live)):
            return failure
        if isinstance(error, OSError):
            where = f": {error.filename}" if error.filename else ""
            return StateError(f"the container's files can't be made: {error.strerror}{where}")
        return error

    # ---- supervising ----

    async def _supervise(self, container: Container, limit: float | None) -> None:
        await container.attend(limit, lambda status: self._exited(container, status))
        if container.status and container.status.verdict is Verdict.LOST:
            # Its keeper was killed, and has not cleaned up.
            await debris.clear_cgroups(container.id)
        del self.live[container.id]
        self._discard(container.record)
        container.left.set()

    async def _exited(self, container: Container, status: ExitStatus) -> ExitStatus:
        def change(transaction: Transaction) -> Record:
            final = status
            if status.verdict is Verdict.SIGNALED and transaction.was_asked(container.id, status.signal or 1):
                final = status.but(verdict=Verdict.KILLED)
            verb = Verb.VANISH if container.record.auto_remove else Verb.EXIT
            owner = container.record.owner if container.record.auto_remove else ""
            after = transaction.move(container.record, verb, status=final, owner=owner)
            transaction.release(after)
            if final.oom_kills:
                transaction.emit(
                    ContainerOutOfMemory(container=after.id, name=after.name, image=after.image, kills=final.oom_kills),
                    at=final.finished,
                )
            transaction.emit(
                ContainerExited(
                    container=after.id,
                    name=after.name,
                    image=after.image,
                    verdict=final.verdict,
                    exit_code=final.exit_code,
                    code=final.code,
                    signal=final.signal,
                    cause=container.cause,
                ),
                at=final.finished,
            )
            return after

        try:
            container.record = await self.commit(change)
        except (StateError, ContainerError):
            # A full disk: whoever waits is told nevertheless, and the next engine records it as lost.
            log.exception("the end of container %s could not be recorded", container.name)
        return container.record.status or status

    def _discard(self, record: Record) -> None:
        if record.state is State.REMOVING:
            self.janitor.discard(record)

    # ---- joining ----

    async def exec(
        self,
        container: str,
        command: Sequence[str],
        *,
        stdio: tuple[int, int, int] | None = None,
        wants_stdin: bool = True,
        time: float | None = None,
        **options: Any,
    ) -> Execution:
        """Starts another process in a running container, which may be another engine's; see ``start`` for ``stdio``.

        ``time`` is its limit in seconds, ``options`` are the fields of ``ExecOptions``. Raises IllegalTransition if the
        container does not run, CommandNotFound and its kin, UsageError.
        """
        self.require_open()
        asked = make_exec_options(command, **options)
        watch = Stopwatch()
        record = self.journal.get(container)
        image = self._recipes.image(self.store, record.image_id)
        with self._pidfd(record) as pidfd, Stdio(stdio, wants_stdin=wants_stdin and not asked.tty) as ends:
            steps: list[tuple[tuple[str, str], ...]] = []

            def compiled() -> _native.Plan:
                plan = self._recipes.joining_plan(image, record, asked, pidfd)
                steps.append(steps_of(plan))
                return plan

            process, report = await self._execute(compiled, ends)
            timing = watch.timing(steps[0], report)
            ends.use_terminal(process.terminal)
        execution = Execution(secrets.token_hex(32), record, asked.command, process, ends, timing)
        self.executions.add(execution)
        self.nursery.start_soon(self._supervise_execution, execution, time)
        return execution

    async def _supervise_execution(self, execution: Execution, limit: float | None) -> None:
        async def record(status: ExitStatus) -> ExitStatus:
            await self._tell_safely(execution.exited_event(status))
            return status

        await self._tell_safely(execution.started_event())
        await execution.attend(limit, record)
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
        if mine and mine.status is None and record.state is State.RUNNING:
            yield mine.pidfd
            return
        pidfd = debris.open_pidfd(record.pid, record.id) if record.state is State.RUNNING else None
        if pidfd is None:
            raise IllegalTransition(f"container {record.name} is {record.state}: nothing can be executed in it")
        try:
            yield pidfd
        finally:
            os.close(pidfd)

    # ---- explaining ----

    def explain(self, image: str | Image, options: RunOptions) -> list[_native.Step]:
        """Every step that would make this container, in order, without making it."""
        found = self._recipes.image(self.store, image)
        container = secrets.token_hex(32)
        mould = self._recipes.mould(found, options, keep=False)
        documents = mould.fill(container, LEASE_FIRST if options.userns == "auto" else None)
        if mould.built.upper != "directory":
            return _native.compile(*documents).steps()
        self.layout.make_upper(container)
        try:
            return _native.compile(*documents).steps()
        finally:
            self.layout.remove_upper(container)

    # ---- the engine's own life ----

    async def begin(self) -> None:
        """Starts the background work; takes over what dead engines left."""
        self.nursery.start_soon(self.janitor.run)
        left = await take_over(self)
        self.nursery.start_soon(sweep_for_ever, self, left, SWEEP_EVERY)

    async def settled(self) -> None:
        """Returns when nothing is left of the containers that have ended and were not to be kept.

        A verb does not wait for that: `run` returns as soon as the outcome is known.
        """
        for container in [*self.live.values()]:
            if container.status is not None:
                await container.left.wait()
        await self.janitor.settled()

    async def close(self) -> None:
        """Kills what runs, waits until nothing of it is left, and closes everything. Is not cancelled."""
        self.closing = True
        with trio.CancelScope(shield=True):
            for _ in range(AT_ONCE):
                await self._turns.acquire()  # Whoever is starting a container just now is done.
            async with trio.open_nursery() as nursery:
                for each in [*self.executions, *self.live.values()]:
                    nursery.start_soon(_end, each)
            await self.janitor.settled()
            self.nursery.cancel_scope.cancel()
            await self.close_parts()


async def _end(attended: Attended) -> None:
    await attended.destroy("engine closed")
    # What hangs in the kernel is left to its keeper, which waits for it.
    attended.abandon()
    await attended.left.wait()


@asynccontextmanager
async def open_engine(
    root: str | os.PathLike[str] | None = None,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    kept_events: int = DEFAULT_KEPT,
) -> AsyncIterator[Engine]:
    """An engine on the state folder ``root`` ($PYRT_ROOT, /var/lib/pyrt), for the time of the block.

    At its end every container that it still runs is killed. ``kept_events``: about how many events are kept.
    Raises StateError, HostError.
    """
    layout = Layout(root, run_dir)
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        engine = Engine(layout, nursery, kept_events=kept_events)
        try:
            await engine.begin()
            yield engine
        except BaseException as raised:
            # Raised below: out of a nursery it would come as an ExceptionGroup.
            error = raised
        finally:
            await engine.close()
    if error is not None:
        raise error
