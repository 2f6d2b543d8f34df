"""``pyrt serve``: one engine, and every native client's verbs run beside it, a task each.

It belongs to one user: the socket is 0600 in a 0700 folder. It ends itself when nobody has needed it for a while.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING, Final, TypeAlias

import trio
import trio.lowlevel

from pyrt.cli.connection import mount_namespace, serve_connection
from pyrt.cli.verbs import VERBS, module_of, parser_of
from pyrt.errors import EngineError, HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyrt.cli.place import Place
    from pyrt.engine.engine import Engine

    OpenEngine: TypeAlias = Callable[[], contextlib.AbstractAsyncContextManager[Engine]]

USUAL_IDLE: Final = 600.0
"""Seconds without a client and without a container, after which the server ends itself."""

_BACKLOG: Final = 4096
_LONGEST_PATH: Final = 107
"""Of sockaddr_un (unix(7)), without its NUL."""
_EXHAUSTED_PAUSE: Final = 0.02
"""Seconds until the next try when the process has no descriptor left for another client."""
_HOT: Final = ("run", "exec", "ps", "images")
"""Verbs that are ready before the first client comes."""
# The interpreter's usual 700 makes a collection of the youngest fall into nearly every run of a verb.
_GC_THRESHOLDS: Final = (50_000, 20, 50)

log: Final = logging.getLogger("pyrt")


class Server:
    """The clients of one engine."""

    def __init__(
        self, place: Place, version: str, open_engine: OpenEngine, inherited: socket.socket | None = None
    ) -> None:
        """``inherited``: a socket that listens at ``place`` already, whose name stays when this server ends."""
        self.place = place
        self.version = version
        self.log_name = str(place.log)
        self.namespace = mount_namespace("self")
        self._open_engine = open_engine
        self._inherited = inherited
        self._engine: Engine | None = None
        self._door = contextlib.ExitStack()
        self._leaves = False
        self._serving = trio.CancelScope()
        self._clients = 0
        self._last_client = 0.0

    async def run(self, *, idle: float, announce: Callable[[], None]) -> None:
        """Serves until it has been idle for so many seconds (0: for ever), is drained, or is told to end by a signal.

        ``announce`` is called when clients can come.
        """
        with self._door:
            self._door.enter_context(_locked(self.place))
            async with self._open_engine() as engine, trio.open_nursery() as background:
                self._engine = engine
                for verb in _HOT:
                    parser_of(verb)
                listener = self._listen()
                _settle_memory()
                await background.start(self._watch_signals)
                announce()
                background.start_soon(self._end_when_idle, idle)
                background.start_soon(self._warm_up)
                with self._serving:
                    async with trio.open_nursery() as clients:
                        clients.start_soon(self._accept, listener, clients)
                background.cancel_scope.cancel()

    # ---- what a connection needs ----

    async def engine(self) -> Engine:
        assert self._engine is not None
        return self._engine

    def drain(self) -> None:
        """Makes room for another server at once; what is being done is done to its end."""
        if self._inherited:
            # Else its clients would wait behind this one for systemd to start another.
            self.place.socket.unlink(missing_ok=True)
        self._leave()

    def _leave(self) -> None:
        self._leaves = True
        self._door.close()

    def _listen(self) -> socket.socket:
        if self._inherited is None:
            return self._door.enter_context(_listening(self.place))
        self._inherited.setblocking(False)
        self._door.callback(_close, self._inherited)
        return self._inherited

    # ---- clients ----

    async def _accept(self, listener: socket.socket, clients: trio.Nursery) -> None:
        """Waits for a client and serves it. The next one has a task of its own by then: so this one goes on at once,
        and not with the loop's next turn."""
        connection = await self._next_client(listener)
        if connection is not None:
            clients.start_soon(self._accept, listener, clients)
            await self._serve(connection)

    async def _next_client(self, listener: socket.socket) -> socket.socket | None:
        """None when no more are to come."""
        while not self._leaves:
            try:
                await trio.lowlevel.wait_readable(listener)
            except trio.ClosedResourceError:
                break
            try:
                return listener.accept()[0]
            except BlockingIOError:
                pass  # It has gone again.
            except OSError as error:
                log.warning("can't accept a client: %s", error)
                await trio.sleep(_EXHAUSTED_PAUSE)
        return None

    async def _serve(self, connection: socket.socket) -> None:
        self._clients += 1
        try:
            await serve_connection(self, connection)
        except Exception:
            log.exception("a connection failed")
        finally:
            self._clients -= 1
            self._last_client = trio.current_time()

    # ---- in the background ----

    async def _end_when_idle(self, idle: float) -> None:
        self._last_client = trio.current_time()
        while idle:
            assert self._engine is not None
            if self._clients or self._engine.has_work():
                # Detached containers live without us, but nobody else restarts them or looks after their health.
                self._last_client = trio.current_time()
            quiet = trio.current_time() - self._last_client
            if quiet >= idle:
                self._leave()
                return
            await trio.sleep(idle - quiet)

    async def _watch_signals(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as numbers:
            task_status.started()
            async for _ in numbers:
                self._leave()
                self._serving.cancel()

    async def _warm_up(self) -> None:
        """Has every verb ready, a little at a time."""
        for verb in VERBS:
            try:
                module_of(verb)
            except (OSError, MemoryError) as error:
                log.warning("the verb %s is not ready beforehand: %s", verb, error)
            await trio.lowlevel.checkpoint()
        _settle_memory()


def _settle_memory() -> None:
    """What is loaded by now stays: no collection has to look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


@contextlib.contextmanager
def _locked(place: Place) -> Iterator[None]:
    """Holds the server's lock, which also names its process."""
    place.prepare()
    descriptor = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode().strip() or "unknown"
        os.close(descriptor)
        raise EngineError(
            f"a server is already there at {place.socket}, process {owner}",
            hint="end that one, or set PYRT_RUN to a folder of its own for this one",
        ) from None
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _close(listener: socket.socket) -> None:
    trio.lowlevel.notify_closing(listener)
    listener.close()


@contextlib.contextmanager
def _listening(place: Place) -> Iterator[socket.socket]:
    """The socket, under its name as long as the block lasts. Whoever holds the lock may replace what lies there."""
    name = str(place.socket)
    if len(os.fsencode(name)) > _LONGEST_PATH:
        raise HostError(f"{name} is too long for the name of a socket", hint="PYRT_RUN names another folder")
    own = 0
    listener = socket.socket(socket.AF_UNIX)
    try:
        before = os.umask(0o177)
        try:
            place.socket.unlink(missing_ok=True)
            listener.bind(name)
        except OSError as error:
            hint = "move away what is there, or name another folder with PYRT_RUN"
            raise EngineError(f"the socket {name} can't be made: {error.strerror}", hint=hint) from error
        finally:
            os.umask(before)
        own = place.socket.stat().st_ino
        listener.setblocking(False)
        listener.listen(_BACKLOG)
        yield listener
    finally:
        with contextlib.suppress(OSError):
            # Whoever has put another in its place, as systemd does, keeps that.
            if place.socket.stat().st_ino == own:
                place.socket.unlink()
        _close(listener)
