"""The engine as its users see it: what runs containers for as long as it is open, and leaves nothing of them behind."""

from __future__ import annotations

import secrets
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import trio

from pyrt import _native
from pyrt.engine.container import DEFAULT_OUTPUT
from pyrt.engine.file_verbs import FileVerbs
from pyrt.engine.journal import DEFAULT_KEPT, LEASE_FIRST
from pyrt.engine.layout import Layout
from pyrt.engine.pool import DEFAULT_WARM
from pyrt.engine.process import KILL_LIMIT
from pyrt.engine.spares import remove_unused
from pyrt.engine.starting import AT_ONCE
from pyrt.engine.sweeping import sweep_for_ever, take_over
from pyrt.runtime.options import make_options
from pyrt.runtime.process import combined

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Sequence

    from pyrt.engine.attended import Attended
    from pyrt.engine.container import Container
    from pyrt.engine.results import Completed
    from pyrt.images.image import Image
    from pyrt.runtime.options import Limits, RunOptions

_NO_COMMAND: Final = ("COMMAND", "(the image names none: give one after its name)")

SWEEP_EVERY: Final = 30.0
"""Seconds between two looks for what other engines left that have died meanwhile."""


@final
class Engine(FileVerbs):
    """Runs containers. Open one with ``open_engine``; any number may be open on one state root."""

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
            image, make_options(command, limits, **options), wants_stdin=bool(stdin), cause="run", brief=True
        )
        return await self.complete(container, stdin, max_output)

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

    # ---- explaining ----

    def explain(self, image: str | Image, options: RunOptions) -> list[_native.Step]:
        """Every step that would make this container, in order, without making it.

        Where neither the image nor ``options`` name a command, the last step says so.
        """
        found = self.recipes.image(self.find_image, image)
        if not combined(found.config, options):
            options = msgspec.structs.replace(options, command=_NO_COMMAND)
        container = secrets.token_hex(32)
        mould = self.recipes.mould(found, options, keep=False)
        documents = mould.fill(container, LEASE_FIRST if options.userns == "auto" else None)
        if mould.built.upper != "directory":
            return _native.compile(*documents).steps()
        folder = self.layout.folder(container)
        _native.make_upper(folder)
        try:
            return _native.compile(*documents).steps()
        finally:
            remove_unused(folder)

    # ---- its own life ----

    async def begin(self) -> None:
        """Starts the background work; takes over what dead engines left."""
        self.in_background(self.janitor.run)
        self.in_background(self.pool.run)
        left = await take_over(self)
        self.in_background(sweep_for_ever, self, left, SWEEP_EVERY)
        self.in_background(self.resume_boot)

    async def settled(self) -> None:
        """Returns when nothing is left of the containers that have ended and were not to be kept.

        A verb does not wait for that: `run` returns as soon as the outcome is known.
        """
        for container in [*self.live.values()]:
            if container.status is not None:
                await container.left.wait()
        await self.pay()
        self.janitor.try_again()
        await self.janitor.settled()

    async def aclose(self) -> None:
        """Kills what is attached, waits until nothing of it is left, and closes everything; what lasts runs on.

        Is not cancelled.
        """
        self.closing = True
        self.spares.close()
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_all, nursery.cancel_scope)
                # Never before, unless there is an error in pyrt: then all that is left to do is to let go.
                await self.over.wait()
                nursery.cancel_scope.cancel()
            for attended in [*self.live.values(), *self.executions]:
                attended.abandon()
            self.nursery.cancel_scope.cancel()
            # A thread of the janitor's may be at work still, with descriptors that are closed now.
            await self.over.wait()
            await self.close_parts()

    async def _end_all(self, whole: trio.CancelScope) -> None:
        for _ in range(AT_ONCE):
            await self.turns.acquire()  # Whoever is starting a container just now is done.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pool.aclose)
            for container in [*self.live.values()]:
                nursery.start_soon(_let_go if container.record.lasting else _end, container)
            for execution in self.executions:
                nursery.start_soon(_end, execution)
        await self.settled()
        await self.janitor.clear_spares()
        whole.cancel()


async def _end(attended: Attended) -> None:
    await attended.destroy("engine closed")
    # What hangs in the kernel is left to its keeper, which waits for it.
    attended.abandon()
    await attended.left.wait()


async def _let_go(container: Container) -> None:
    if container.status is not None:
        # It has ended: what is to be removed is removed once its keeper has gone, if that is not held up.
        with trio.move_on_after(KILL_LIMIT):
            await container.left.wait()
    container.release()
    await container.left.wait()


async def _background(over: trio.Event, task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """A nursery that works on until the engine is closed, whatever is cancelled around it: closing needs its tasks."""
    try:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                task_status.started(nursery)
                await trio.sleep_forever()
    finally:
        over.set()


@asynccontextmanager
async def open_engine(
    root: str | os.PathLike[str] | None = None,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    kept_events: int = DEFAULT_KEPT,
    warm: int = DEFAULT_WARM,
) -> AsyncIterator[Engine]:
    """An engine on the state folder ``root`` ($PYRT_ROOT, /var/lib/pyrt), for the time of the block.

    At its end every container that is attached to it is killed; those that were detached run on, in the care of their
    keepers, until the next engine. ``kept_events``: about how many events are kept.
    ``warm``: how many containers at most are made beforehand, of images that are started again and again; 0 for none.
    Raises StateError, HostError.
    """
    layout = Layout(root, run_dir)
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        # Errors are raised below: out of a nursery they would come as an ExceptionGroup.
        try:
            over = trio.Event()
            background: trio.Nursery = await nursery.start(_background, over)
            try:
                async with aclosing(Engine(layout, background, kept_events=kept_events, warm=warm)) as engine:
                    engine.over = over
                    await engine.begin()
                    yield engine
            finally:
                background.cancel_scope.cancel()
        except BaseException as raised:
            error = raised
    if error is not None:
        raise error
