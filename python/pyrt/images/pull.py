"""Pulling: from a name to an image in the store, its layers extracted while they still arrive.

    name -> places to ask -> index -> manifest for this platform -> configuration -> layers, several at once -> image

Each place is asked until one has it. How a layer gets in is `layer_pull`'s part.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import trio

from pyrt.errors import ImageNotFound, InvalidImage, PlatformNotFound, PyrtError, RegistryError
from pyrt.images import platform as platforms
from pyrt.images.auth import Keyring
from pyrt.images.config import LARGEST_CONFIG, parse_config
from pyrt.images.layer_pull import LayerPuller
from pyrt.images.manifest import Index, Manifest, pair_layers, parse
from pyrt.images.platform import Platform
from pyrt.images.reference import Reference
from pyrt.images.registries import Registries
from pyrt.images.registry import Registry
from pyrt.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyrt.images.config import ImageConfig
    from pyrt.images.image import Image
    from pyrt.images.manifest import Blob
    from pyrt.images.patience import Patience
    from pyrt.images.progress import Callback, Progress
    from pyrt.images.registries import Endpoint
    from pyrt.images.registry import Document
    from pyrt.images.store import Store

# What Docker and the containers tools have found to fill a line without crowding it.
LAYERS_AT_ONCE: Final = 3

# An index in an index in an index is more than any tool makes.
_DEEPEST_INDEX: Final = 3


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
        self._store = store
        self._tell = tell
        self._layers_at_once = layers_at_once
        self._keyring = keyring
        self._wanted = wanted
        self._patience = patience

    async def from_endpoint(self, reference: Reference, endpoint: Endpoint) -> Image:
        """Fetch what one place has; ``reference`` has a tag or a digest."""
        with ExitStack() as stack:
            # From the first look at what is there until the image is: else a sweep might take a layer in between.
            await in_thread(stack.enter_context, self._store.pinned())
            return await self._from_registry(reference, endpoint)

    async def _from_registry(self, reference: Reference, endpoint: Endpoint) -> Image:
        name = reference.familiar()
        async with Registry.open(endpoint, self._keyring, self._patience) as registry:
            top = await registry.manifest(reference.digest or reference.tag or "")
            document, manifest = await self._choose(registry, top, name)
            config = await registry.blob(manifest.config.digest, manifest.config.size, limit=LARGEST_CONFIG)
            layers = pair_layers(manifest, self._read_config(config, name).diff_ids, name)
            await self._get_layers(registry, layers)
        return await in_thread(
            lambda: self._store.add_image(
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
        puller = LayerPuller(self._store, registry, self._tell, self._layers_at_once)
        failures: list[PyrtError] = []

        async def get(blob: Blob, diff_id: str) -> None:
            try:
                await puller.get(blob, diff_id)
            except PyrtError as failure:
                failures.append(failure)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for diff_id, blob in {diff_id: blob for blob, diff_id in layers}.items():
                nursery.start_soon(get, blob, diff_id)
        if failures:
            raise failures[0]


def _tell_nobody(_: Progress) -> None:
    pass


def _summary(failures: list[ImageNotFound | RegistryError]) -> ImageNotFound | RegistryError:
    """The last place's failure, since that is the image's own registry, and what the ones before it said."""
    *before, last = failures
    if before:
        last.message += f"; before that: {'; '.join(failure.message for failure in before)}"
    return last
