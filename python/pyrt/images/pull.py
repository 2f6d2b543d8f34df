"""Pulling: from a name to an image in the store, its layers extracted while they still arrive.

    registry --download--> pipe --extract_layer--> layer's folder, and a copy of the bytes for the store
    (Trio task)                 (worker thread)

One pair of a task and a thread a layer, several layers at once. The store holds a lock on each layer, so
whoever comes second finds it done; what was downloaded when a pull ends early is where the next one goes on.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

from pyrt.errors import ImageNotFound, InvalidImage, PlatformNotFound, PyrtError, RegistryError
from pyrt.images import platform as platforms
from pyrt.images.auth import Keyring
from pyrt.images.config import LARGEST_CONFIG, parse_config
from pyrt.images.manifest import Index, Manifest, pair_layers, parse
from pyrt.images.platform import Platform
from pyrt.images.progress import Progress
from pyrt.images.reference import Reference
from pyrt.images.registries import Registries
from pyrt.images.registry import Registry
from pyrt.images.scratch import Cancelled as WaitCancelled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyrt.images.config import ImageConfig
    from pyrt.images.image import Image
    from pyrt.images.manifest import Blob
    from pyrt.images.progress import Callback, State
    from pyrt.images.registries import Endpoint
    from pyrt.images.registry import Document
    from pyrt.images.store import Store
    from pyrt.images.transport import Patience

# What Docker and the containers tools have found to fill a line without crowding it.
LAYERS_AT_ONCE: Final = 3

# An index in an index in an index is more than any tool makes.
_DEEPEST_INDEX: Final = 3
# Enough for the extraction to go on while the loop serves others: 1 MiB is what any user may have.
_PIPE_BYTES: Final = 1 << 20
_PIECE: Final = 1 << 20
# Telling of every chunk would cost more than reading it.
_TELL_EVERY: Final = 256 << 10


async def pull(
    store: Store,
    name: Reference | str,
    *,
    platform: Platform | str | None = None,
    progress: Callback | None = None,
    layers_at_once: int = LAYERS_AT_ONCE,
    patience: Patience | None = None,
    environ: Mapping[str, str] | None = None,
) -> Image:
    """Fetch an image, whole or not at all, and return it.

    A ``str`` may be a short name, which this machine's registries.conf explains; a ``Reference`` means just
    what it says. ``platform`` is this host's unless given. ``environ`` says where the user's credentials
    and registries.conf are (default: this process's). Raises ``ImageNotFound``, ``PlatformNotFound``,
    ``InvalidImage``, ``RegistryError``, ``Unauthorized``, ``UsageError``, ``StateError``. It may be cancelled
    at any time; parts of layers that have come are kept for the next attempt.
    """
    registries = Registries.of(environ)
    work = _Pull(
        store,
        Keyring.of(environ),
        Platform.parse(platform) if isinstance(platform, str) else platform or platforms.host(),
        progress or _tell_nobody,
        layers_at_once,
        patience,
    )
    references = (name,) if isinstance(name, Reference) else registries.resolve(name)
    places = [(each, endpoint) for each in references for endpoint in registries.endpoints(each.with_default_tag())]
    failures: list[ImageNotFound | RegistryError] = []
    for reference, endpoint in places:
        try:
            return await work.from_endpoint(reference.with_default_tag(), endpoint)
        except (ImageNotFound, RegistryError) as failure:
            failures.append(failure)
    raise _summary(failures)


class _Pull:
    """One pull: what stays the same whichever endpoint is asked."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        wanted: Platform,
        tell: Callback,
        layers_at_once: int,
        patience: Patience | None,
    ) -> None:
        self.store = store
        self.tell = tell
        # Not Trio's own: its threads might all wait for locks that are held by layers who wait for a thread.
        self.threads = trio.CapacityLimiter(layers_at_once)
        self._turns = trio.Semaphore(layers_at_once)
        self._keyring = keyring
        self._wanted = wanted
        self._patience = patience

    async def from_endpoint(self, reference: Reference, endpoint: Endpoint) -> Image:
        """Fetch what one place has; ``reference`` has a tag or a digest."""
        with ExitStack() as stack:
            # From the first look at what is there until the image is: else a sweep might take a layer in between.
            await trio.to_thread.run_sync(stack.enter_context, self.store.pinned())
            return await self._from_registry(reference, endpoint)

    async def _from_registry(self, reference: Reference, endpoint: Endpoint) -> Image:
        name = reference.familiar()
        async with Registry.open(endpoint, self._keyring, self._patience) as registry:
            top = await registry.manifest(reference.digest or reference.tag or "")
            document, manifest = await self._choose(registry, top, name)
            config = await registry.blob(manifest.config.digest, manifest.config.size, limit=LARGEST_CONFIG)
            layers = pair_layers(manifest, self._read_config(config, name).diff_ids, name)
            await self._get_layers(registry, layers)
        return await trio.to_thread.run_sync(
            lambda: self.store.add_image(
                manifest=document.content,
                manifest_media_type=manifest.media_type,
                config=config,
                layers=[(blob.digest, diff_id, blob.size) for blob, diff_id in layers],
                # As with Docker, a digest names nothing: the tag beside it may have moved on.
                names=[] if reference.digest else [reference],
                repo_digest=str(reference.pinned(top.digest)),
            )
        )

    async def _choose(self, registry: Registry, document: Document, name: str) -> tuple[Document, Manifest]:
        """Go down an index, if there is one, to the manifest for the wanted platform."""
        for _ in range(_DEEPEST_INDEX + 1):
            found = parse(document.content, document.media_type, name)
            if isinstance(found, Manifest):
                return document, found
            document = await registry.manifest(self._entry(found, name).digest)
        raise InvalidImage(f"{name} is an index in an index, more than {_DEEPEST_INDEX} deep")

    def _entry(self, index: Index, name: str) -> Blob:
        offered = [entry.platform for entry in index.entries]
        place = platforms.choose(offered, self._wanted)
        if place is None:
            raise self._no_platform(name, [each for each in offered if each and each.os != "unknown"])
        return index.entries[place].blob

    def _read_config(self, content: bytes, name: str) -> ImageConfig:
        """The configuration, if it is one for the wanted platform; who doesn't say is taken at its index's word."""
        config = parse_config(content)
        if config.os and config.architecture:
            found = Platform.of(config.os, config.architecture, config.variant, config.os_version, config.os_features)
            if not platforms.fits(found, self._wanted):
                raise self._no_platform(name, [found])
        return config

    def _no_platform(self, name: str, offered: list[Platform]) -> PlatformNotFound:
        available = tuple(dict.fromkeys(each.describe() for each in offered))
        has = f"; it has: {', '.join(available)}" if available else ""
        hint = f"choose one with --platform {offered[0]}" if offered else None
        return PlatformNotFound(f"no image for {self._wanted} in {name}{has}", available=available, hint=hint)

    async def _get_layers(self, registry: Registry, layers: tuple[tuple[Blob, str], ...]) -> None:
        """All the layers that the store lacks, each once; the first failure ends the others."""
        failures: list[PyrtError] = []

        async def get(blob: Blob, diff_id: str) -> None:
            try:
                async with self._turns:
                    await _LayerPull(self, registry, blob, diff_id).run()
            except PyrtError as failure:
                failures.append(failure)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for blob, diff_id in {diff_id: (blob, diff_id) for blob, diff_id in layers}.values():
                self.tell(Progress(blob.digest, "waiting", 0, blob.size))
                nursery.start_soon(get, blob, diff_id)
        if failures:
            raise failures[0]


class _LayerPull:
    """One layer on its way from the registry into the store."""

    def __init__(self, work: _Pull, registry: Registry, blob: Blob, diff_id: str) -> None:
        self._store = work.store
        self._threads = work.threads
        self._callback = work.tell
        self._registry = registry
        self._blob = blob
        self._diff_id = diff_id

    async def run(self) -> None:
        """Download and extract. If the part that an earlier attempt left turns out to be damaged, from nothing."""
        if await trio.to_thread.run_sync(self._store.has_layer, self._diff_id):
            self._tell("exists")
            return
        try:
            await self._attempt()
        except _StalePart:
            await self._attempt()

    async def _attempt(self) -> None:
        with _Line.open() as line:
            failure = await self._run_both_ends(line)
            if failure is None:
                return
            # Of a cancelled pull nobody wants to hear what the cancelling broke.
            await trio.lowlevel.checkpoint_if_cancelled()
            if line.part and isinstance(failure, InvalidImage):
                raise _StalePart(failure.message, hint=failure.hint) from failure
            raise failure

    async def _run_both_ends(self, line: _Line) -> PyrtError | None:
        failure: PyrtError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed, line)
            try:
                # When cancelled, it is still waited for: the feeding task ends then, and with it the thread.
                await trio.to_thread.run_sync(self._ingest, line, limiter=self._threads)
            except PyrtError as error:
                failure = error
            except WaitCancelled:
                failure = _cancelled()
            nursery.cancel_scope.cancel()
        return failure

    def _ingest(self, line: _Line) -> None:
        """In a worker thread: take what comes through the pipe into the store."""
        from pyrt._native import extract_layer

        cancelled = line.cancelled.is_set
        with self._store.ingest_layer(self._diff_id, self._blob.digest, cancelled=cancelled) as ingestion:
            if ingestion.exists:
                trio.from_thread.run_sync(self._tell, "exists")
                return
            trio.from_thread.run_sync(line.begin, ingestion.blob, min(ingestion.blob_size, self._blob.size))
            try:
                report = extract_layer(line.source, ingestion.directory, blob=ingestion.blob, cancel=line.flag)
            except PyrtError as error:
                # A pipe that ends early looks like a damaged layer, and the store would throw away what has come.
                raise line.why_it_ended() or error from None
            ingestion.commit(report)
        trio.from_thread.run_sync(self._tell, "done", self._blob.size)

    async def _feed(self, line: _Line) -> None:
        """Write the compressed bytes into the pipe: those that an earlier attempt left, then those that are missing."""
        try:
            await line.begun.wait()
            counter = _Counter(self, line.sink)
            for offset in range(0, line.part, _PIECE):
                length = min(_PIECE, line.part - offset)
                await counter.pass_on(await trio.to_thread.run_sync(os.pread, line.blob, length, offset))
            await self._registry.download(self._blob.digest, self._blob.size, counter.pass_on, offset=line.part)
            self._tell("extracting", self._blob.size)
            line.whole = True
        except PyrtError as error:
            line.failure = error
        finally:
            line.end()

    def _tell(self, state: State, current: int = 0) -> None:
        self._callback(Progress(self._blob.digest, state, current, self._blob.size))


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
            source, target = os.pipe2(os.O_CLOEXEC)
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

    def __init__(self, layer: _LayerPull, sink: trio.lowlevel.FdStream) -> None:
        self._layer = layer
        self._sink = sink
        self._passed = 0
        self._told = -_TELL_EVERY

    async def pass_on(self, chunk: bytes) -> None:
        await self._sink.send_all(chunk)
        self._passed += len(chunk)
        if self._passed - self._told >= _TELL_EVERY:
            self._told = self._passed
            self._layer._tell("downloading", self._passed)


class _StalePart(InvalidImage):
    """The layer is damaged, and part of it came from an earlier attempt."""


def _cancelled() -> PyrtError:
    """Stands in for Trio's own exception, which only a checkpoint can raise."""
    return PyrtError("the pull was cancelled")


def _tell_nobody(_: Progress) -> None:
    pass


def _summary(failures: list[ImageNotFound | RegistryError]) -> ImageNotFound | RegistryError:
    """The last place's failure, since that is the image's own registry, and what the ones before it said."""
    *before, last = failures
    if before:
        last.message += f"; before that: {'; '.join(failure.message for failure in before)}"
    return last
