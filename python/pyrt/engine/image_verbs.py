"""The engine's verbs on images: the store's and the registry's work, done in worker threads and told as events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyrt.engine.core import Core
from pyrt.engine.events import (
    ImageImported,
    ImageLoaded,
    ImagePulled,
    ImageRemoved,
    ImageSaved,
    ImageTagged,
    ImageUntagged,
)
from pyrt.errors import ImageNotFound, UsageError
from pyrt.images.reference import has_registry
from pyrt.images.registries import Registries

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pyrt.engine.journal import Transaction
    from pyrt.images.archive import Form
    from pyrt.images.image import Image, Removed, Usage
    from pyrt.images.platform import Platform
    from pyrt.images.progress import Callback
    from pyrt.images.reference import Reference


class ImageVerbs(Core):
    """Pulling, finding, naming and removing images."""

    async def pull(
        self,
        name: Reference | str,
        *,
        platform: Platform | str | None = None,
        progress: Callback | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Image:
        """Fetches an image from its registry, layers in parallel; what is here already is not fetched again.

        ``environ`` says where the user's credentials and registries.conf are, if not this process's environment.
        """
        from pyrt.images.pull import pull

        self.require_open()
        image = await pull(self.store, name, platform=platform, progress=progress, environ=environ)
        await self.tell(ImagePulled(image=image.id, name=str(name), cause="pull"))
        return image

    async def load(
        self,
        source: str | os.PathLike[str] | int,
        *,
        name: str | None = None,
        platform: Platform | None = None,
        progress: Callback | None = None,
    ) -> list[Image]:
        """All images of an archive (``docker save``, OCI layout as folder or tar): a path or an open descriptor.

        ``name`` is given to the one image of it. ``progress`` is called from a worker thread.
        """
        from pyrt.images.archive import load

        loaded = await self.in_thread(lambda: load(self.store, source, name=name, platform=platform, progress=progress))
        await self.commit(lambda transaction: _tell_loaded(transaction, loaded))
        return loaded

    async def save(
        self, names: Sequence[str], destination: str | os.PathLike[str] | int, *, form: Form = "docker-archive"
    ) -> None:
        """Writes images to an archive: a path, or an open descriptor for a tar."""
        from pyrt.images.archive import save

        await self.in_thread(lambda: save(self.store, names, destination, form=form))
        saved = [(self.store.find(name).id, name) for name in names]
        await self.commit(lambda transaction: _tell_saved(transaction, saved))

    async def import_image(
        self,
        source: str | os.PathLike[str] | int,
        *,
        name: str | None = None,
        changes: Sequence[str] = (),
        platform: Platform | None = None,
        message: str = "",
    ) -> Image:
        """An image of one layer from a root file system: a directory, a tar, or a descriptor of one.

        ``changes`` are instructions of a Dockerfile, such as ``CMD ["sh"]``.
        """
        from pyrt.images.importing import import_rootfs

        image = await self.in_thread(
            lambda: import_rootfs(self.store, source, name=name, changes=changes, platform=platform, message=message)
        )
        await self.tell(ImageImported(image=image.id, name=name or "", cause="import"))
        return image

    def find_image(self, name: str, *, environ: Mapping[str, str] | None = None) -> Image:
        """The image of this name, id, or beginning of an id. Quick; raises ImageNotFound.

        A short name means what ``pull`` would take it for, if that is here; ``environ`` as there.
        """
        return self._local(name, environ)[1] or self.store.find(name)

    def local_name(self, name: str, environ: Mapping[str, str] | None = None) -> str:
        """Of what registries.conf makes of a short name, the first that is here; any other name as it is."""
        return self._local(name, environ)[0]

    def _local(self, name: str, environ: Mapping[str, str] | None) -> tuple[str, Image | None]:
        for meaning in _meanings(name, environ):
            try:
                return meaning, self.store.find(meaning)
            except ImageNotFound:
                continue
        return name, None

    async def images(self) -> list[Image]:
        """All images, the youngest first."""
        return await self.in_thread(self.store.list)

    async def tag(self, source: str, target: str) -> None:
        """Gives an image another name."""
        await self.in_thread(self.store.tag, source, target)
        await self.tell(ImageTagged(image=self.store.find(target).id, name=target, cause="tag"))

    async def remove_image(self, name: str, *, force: bool = False) -> Removed:
        """Takes away a name, and with the last one the image. Raises ImageNotFound, ImageInUse."""
        used = self.images_in_use()
        return await self._removed(lambda: self.store.remove(name, force=force, in_use=used), "remove")

    async def prune_images(self, *, all: bool = False, keep: Collection[str] = ()) -> Removed:
        """Removes images without a name, or all that no container uses, but none whose id is in ``keep``."""
        used = self.images_in_use() | frozenset(keep)
        return await self._removed(lambda: self.store.prune(all=all, in_use=used), "prune")

    async def usage(self) -> Usage:
        """What the images take on the disk."""
        return await self.in_thread(self.store.usage, self.images_in_use())

    def images_in_use(self) -> frozenset[str]:
        """Ids of the images of all containers, but for those of which nothing is kept."""
        return frozenset(record.image_id for record in self.journal.records() if not record.is_gone)

    async def _removed(self, work: Callable[[], Removed], cause: str) -> Removed:
        removed = await self.in_thread(work)

        def change(transaction: Transaction) -> None:
            for name in removed.untagged:
                transaction.emit(ImageUntagged(image="", name=name, cause=cause))
            for image in removed.deleted:
                transaction.emit(ImageRemoved(image=image, cause=cause))

        await self.commit(change)
        return removed


def _meanings(name: str, environ: Mapping[str, str] | None) -> list[str]:
    """What registries.conf makes of a short name; nothing where it has no say."""
    if has_registry(name):
        return []
    registries = Registries.of(environ)
    known = _understood.get(name)
    # The same object for as long as the files are the same: to take a name apart costs more than to look at them.
    if known and known[0] is registries:
        return known[1]
    try:
        meanings = [str(meaning.with_default_tag()) for meaning in registries.resolve(name)]
    except UsageError:
        return []  # An id, perhaps; else whoever looks for it says what is wrong.
    if len(_understood) >= _MOST_UNDERSTOOD:
        _understood.clear()
    _understood[name] = registries, meanings
    return meanings


_understood: Final[dict[str, tuple[Registries, list[str]]]] = {}
_MOST_UNDERSTOOD: Final = 256


def _tell_loaded(transaction: Transaction, images: Sequence[Image]) -> None:
    for image in images:
        transaction.emit(ImageLoaded(image=image.id, name=(image.names or ("",))[0], cause="load"))


def _tell_saved(transaction: Transaction, saved: Sequence[tuple[str, str]]) -> None:
    for image, name in saved:
        transaction.emit(ImageSaved(image=image, name=name, cause="save"))
