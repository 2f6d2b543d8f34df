"""The engine's verbs on images: the store's and the registry's work, done in worker threads and told as events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.engine.core import Core
from pyrt.engine.events import ImageImported, ImageLoaded, ImagePulled, ImageRemoved, ImageTagged, ImageUntagged

if TYPE_CHECKING:
    from pyrt.engine.journal import Transaction
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
    ) -> Image:
        """Fetches an image from its registry, layers in parallel; what is here already is not fetched again."""
        from pyrt.images.pull import pull

        self.require_open()
        image = await pull(self.store, name, platform=platform, progress=progress)
        await self.tell(ImagePulled(image=image.id, name=str(name), cause="pull"))
        return image

    def find_image(self, name: str) -> Image:
        """The image of this name, id, or beginning of an id. Quick; raises ImageNotFound."""
        return self.store.find(name)

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

    async def prune_images(self, *, all: bool = False) -> Removed:
        """Removes images without a name, or all that no container uses."""
        used = self.images_in_use()
        return await self._removed(lambda: self.store.prune(all=all, in_use=used), "prune")

    async def usage(self) -> Usage:
        """What the images take on the disk."""
        return await self.in_thread(self.store.usage, self.images_in_use())

    def images_in_use(self) -> frozenset[str]:
        """Ids of the images of all containers that are recorded."""
        return frozenset(record.image_id for record in self.journal.records())

    async def _removed(self, work: Callable[[], Removed], cause: str) -> Removed:
        removed = await self.in_thread(work)

        def change(transaction: Transaction) -> None:
            for name in removed.untagged:
                transaction.emit(ImageUntagged(image="", name=name, cause=cause))
            for image in removed.deleted:
                transaction.emit(ImageRemoved(image=image, cause=cause))

        await self.commit(change)
        return removed
