"""One layer on its way from a registry into the store, extracted while it arrives.

    registry --download--> pipe --extract_layer--> the layer's folder, and a copy of the bytes for the store
    (Trio task)                 (worker thread)

The store lets one alone work on a layer, so whoever comes second finds it done. What has been downloaded
when a pull ends early is kept, and the next one goes on from there.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

from pyrt.errors import HostError, InvalidImage, PyrtError
from pyrt.images.progress import Progress
from pyrt.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyrt.images.manifest import Blob
    from pyrt.images.progress import Callback, State
    from pyrt.images.registry import Registry
    from pyrt.images.store import Store

# Enough for the extraction to go on while the loop serves others: 1 MiB is what any user may have.
_PIPE_BYTES: Final = 1 << 20
_PIECE: Final = 1 << 20
# Telling of every chunk would cost more than reading it.
_TELL_EVERY: Final = 256 << 10


class LayerPuller:
    """Brings layers of one repository into the store, at most ``at_once`` at a time; the others wait."""

    def __init__(self, store: Store, registry: Registry, tell: Callback, at_once: int) -> None:
        self._store = store
        self._registry = registry
        self._callback = tell
        self._turns = trio.Semaphore(at_once)
        # Not Trio's own: its threads might all wait for locks of layers that wait for a thread themselves.
        self._threads = trio.CapacityLimiter(at_once)

    async def get(self, blob: Blob, diff_id: str) -> None:
        """See to it that a layer is in the store. May be cancelled at any time."""
        self._tell(blob, "waiting")
        async with self._turns:
            if await in_thread(self._store.has_layer, diff_id):
                self._tell(blob, "exists")
                return
            try:
                await self._attempt(blob, diff_id)
            except _StalePart:
                await self._attempt(blob, diff_id)

    async def _attempt(self, blob: Blob, diff_id: str) -> None:
        with _Line.open() as line:
            failure = await self._run_both_ends(line, blob, diff_id)
            if failure is None:
                return
            # Of a cancelled pull nobody wants to hear what the cancelling broke.
            await trio.lowlevel.checkpoint_if_cancelled()
            if line.part and isinstance(failure, InvalidImage):
                raise _StalePart(failure.message, hint=failure.hint) from failure
            raise failure

    async def _run_both_ends(self, line: _Line, blob: Blob, diff_id: str) -> PyrtError | None:
        failure: PyrtError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed, line, blob)
            try:
                # When cancelled, it is still waited for: the feeding task ends then, and with it the thread.
                await in_thread(self._ingest, line, blob, diff_id, limiter=self._threads)
            except PyrtError as error:
                failure = error
            except OSError as error:
                failure = _out_of_something(error)
            nursery.cancel_scope.cancel()
        return failure

    def _ingest(self, line: _Line, blob: Blob, diff_id: str) -> None:
        """In a worker thread: take what comes through the pipe into the store."""
        from pyrt._native import extract_layer

        with self._store.ingest_layer(diff_id, blob.digest, cancelled=line.cancelled.is_set) as ingestion:
            if ingestion.exists:
                trio.from_thread.run_sync(self._tell, blob, "exists")
                return
            trio.from_thread.run_sync(line.begin, ingestion.blob, min(ingestion.blob_size, blob.size))
            try:
                report = extract_layer(line.source, ingestion.directory, blob=ingestion.blob, cancel=line.flag)
            except PyrtError as error:
                # A pipe that ends early looks like a damaged layer, and the store would throw away what has come.
                raise line.why_it_ended() or _of_layer(error, blob) from None
            ingestion.commit(report)
        trio.from_thread.run_sync(self._tell, blob, "done", blob.size)

    async def _feed(self, line: _Line, blob: Blob) -> None:
        """Write the compressed bytes into the pipe: those that an earlier attempt left, then those that are missing."""
        try:
            await line.begun.wait()
            counter = _Counter(line.sink, lambda passed: self._tell(blob, "downloading", passed))
            for offset in range(0, line.part, _PIECE):
                length = min(_PIECE, line.part - offset)
                await counter.pass_on(await in_thread(os.pread, line.blob, length, offset))
            await self._registry.download(blob.digest, blob.size, counter.pass_on, offset=line.part)
            self._tell(blob, "extracting", blob.size)
            line.whole = True
        except PyrtError as error:
            line.failure = error
        except OSError as error:
            line.failure = _out_of_something(error)
        finally:
            line.end()

    def _tell(self, blob: Blob, state: State, current: int = 0) -> None:
        self._callback(Progress(blob.digest, state, current, blob.size))


class _Line:
    """The pipe between a download and its extraction, and what either end must know of the other."""

    def __init__(self, source: int, sink: trio.lowlevel.FdStream) -> None:
        from pyrt._native import CancelFlag

        self.source = source
        self.sink = sink
        self.flag = CancelFlag()
        self.cancelled = threading.Event()
        self.begun = trio.Event()
        self.blob = -1
        self.part = 0
        self.whole = False
        self.failure: PyrtError | None = None

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[_Line]:
        """A line whose descriptors end with the block."""
        with ExitStack() as stack:
            try:
                source, target = os.pipe2(os.O_CLOEXEC)
            except OSError as error:
                raise _out_of_something(error) from error
            stack.callback(os.close, source)
            sink = trio.lowlevel.FdStream(target)
            stack.callback(sink.close)
            with suppress(OSError):
                # Refused where the user has too many pipes already; a small one serves too.
                fcntl.fcntl(target, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            line = cls(source, sink)
            stack.callback(line._close_blob)
            yield line

    def begin(self, blob: int, part: int) -> None:
        """The extraction is ready; ``blob`` holds the first ``part`` bytes. It is the store's: copied."""
        self.blob, self.part = os.dup(blob), part
        self.begun.set()

    def end(self) -> None:
        """Nothing more will come. The flag first: an end that was too early must not be taken for the layer's."""
        if not self.whole:
            self.cancelled.set()
            self.flag.set()
        self.sink.close()

    def why_it_ended(self) -> PyrtError | None:
        """Why the extraction did not get everything; None: it did, or has itself to blame."""
        if self.failure or not self.cancelled.is_set():
            return self.failure
        return _cancelled()

    def _close_blob(self) -> None:
        if self.blob >= 0:
            os.close(self.blob)


class _Counter:
    """Passes bytes on, and tells every now and then how many they were."""

    def __init__(self, sink: trio.lowlevel.FdStream, tell: Callable[[int], None]) -> None:
        self._sink = sink
        self._tell = tell
        self._passed = 0
        self._told = -_TELL_EVERY

    async def pass_on(self, chunk: bytes) -> None:
        await self._sink.send_all(chunk)
        self._passed += len(chunk)
        if self._passed - self._told >= _TELL_EVERY:
            self._told = self._passed
            self._tell(self._passed)


class _StalePart(InvalidImage):
    """The layer is damaged, and part of it came from an earlier attempt."""


def _of_layer(error: PyrtError, blob: Blob) -> PyrtError:
    """The same, saying which layer it is about."""
    if not isinstance(error, InvalidImage):
        return error
    hint = "the registry sends other bytes than its manifest promises, or the image was built wrong"
    return InvalidImage(f"layer {blob.digest} is damaged: {error.message}", hint=error.hint or hint)


def _cancelled() -> PyrtError:
    """Stands in for Trio's own exception, which only a checkpoint can raise."""
    return PyrtError("the pull was cancelled")


def _out_of_something(error: OSError) -> HostError:
    """Descriptors or memory, most likely."""
    failure = HostError(f"a layer can't be pulled: {(error.strerror or str(error)).lower()}")
    failure.__cause__ = error
    return failure
