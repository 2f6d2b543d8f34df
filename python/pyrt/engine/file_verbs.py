"""The engine's verbs on a container's files: its changes, copies in and out, the whole as a tar or as an image."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from pyrt import _native
from pyrt.engine.carrier import Pack, Unpack
from pyrt.engine.carrying import carry, carry_both
from pyrt.engine.configuration import config_of
from pyrt.engine.differing import FileChange, changes, disk_usage
from pyrt.engine.events import ImageCommitted
from pyrt.engine.live_verbs import LiveVerbs
from pyrt.engine.recipe import options_of
from pyrt.engine.rootfs import Rootfs, open_rootfs
from pyrt.engine.states import LIVE, State
from pyrt.engine.unpacking import Ownership
from pyrt.errors import ContainerError, ContainerNotFound, IllegalTransition, PyrtError, UsageError
from pyrt.images import host as host_view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from pyrt.engine.record import Record
    from pyrt.images.image import Image

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class FileVerbs(LiveVerbs):
    """diff, copy_out, copy_in, export, commit."""

    async def diff(self, container: str) -> list[FileChange]:
        """What a container has changed of its image's files, sorted by path. Raises ContainerError if none can say."""
        record = self.journal.get(container)
        return await self.in_thread(self._diff, record)

    async def copy_out(
        self,
        container: str,
        path: str,
        target: str | os.PathLike[str] | int,
        *,
        follow_link: bool = False,
        archive: bool = False,
    ) -> None:
        """Copies a file or folder out of a container, which need not run.

        ``target``: where to, as cp(1) has it: into a folder that is there, else under that name; "/srv/." are the
        contents of /srv. A descriptor gets a tar. Files become the caller's and lose their set-id bits, unless
        ``archive`` keeps owners and rights. Raises ContainerError, ContainerNotFound. Cancelled, it leaves a part.
        """
        async with self._rootfs(container) as root:
            pack = Pack(_absolute(path), base=root.base, follow=follow_link)
            if isinstance(target, int):
                await carry(pack, root.descriptor, target)
                return
            own = None if archive else (os.geteuid(), os.getegid())
            unpack = Unpack(_of_host(target), Ownership(all=own, rights=archive), inside=False)
            with _slash() as slash:
                await carry_both([(pack, root.descriptor), (unpack, slash)])

    async def copy_in(
        self,
        container: str,
        source: str | os.PathLike[str] | int,
        path: str,
        *,
        follow_link: bool = False,
        archive: bool = False,
    ) -> None:
        """Copies a file or folder into a container, which need not run; ``path`` as ``target`` of ``copy_out``.

        A ``source`` that is a descriptor gives a tar, which is unpacked in the folder ``path`` with the owners that it
        names. Else files become root's, unless ``archive`` keeps their owners. Raises as ``copy_out`` does.
        """
        async with self._undisturbed(container), self._rootfs(container) as root:
            keeps = archive or isinstance(source, int)
            owner = Ownership(all=None if keeps else (0, 0), base=root.base or 0, rights=True)
            whole = not isinstance(source, int)
            unpack = Unpack(_absolute(path), owner, base=root.base, whole=whole)
            if isinstance(source, int):
                await carry(unpack, root.descriptor, source)
            else:
                with _slash() as slash:
                    pack = Pack(_of_host(source), follow=follow_link)
                    await carry_both([(pack, slash), (unpack, root.descriptor)])

    async def export(self, container: str, target: int) -> None:
        """Writes a container's files, without what is mounted in it, as a tar to a descriptor. It need not run."""
        async with self._rootfs(container) as root:
            await carry(Pack("/", base=root.base, empty=root.mounts), root.descriptor, target)

    async def commit_container(
        self,
        container: str,
        name: str | None = None,
        *,
        changes: Sequence[str] = (),
        author: str = "",
        message: str = "",
        pause: bool = True,
    ) -> Image:
        """Makes an image of a container: its image's layers, and one of what it has changed.

        It is to be run as the container was, with ``changes``, instructions of a Dockerfile, applied. A container that
        runs is paused meanwhile, unless ``pause`` is false. Raises ContainerError, UsageError.
        """
        from pyrt.images.committing import commit_image

        record = self.journal.get(container)
        base = self.recipes.image(self.find_image, record.image_id)
        upper = self._upper(record)
        if upper is None or base.id == host_view.NAME:
            raise self._no_layer(record, base)
        config = config_of(base.config, record)

        def work() -> Image:
            with _opened(upper / "upper") as folder:
                return commit_image(
                    self.store,
                    base,
                    folder,
                    config,
                    name=name,
                    changes=changes,
                    author=author,
                    message=message,
                    command=" ".join(record.command),
                )

        async with self._at_rest(record, pause=pause):
            image = await self.in_thread(work)
        await self.tell(ImageCommitted(image=image.id, name=name or "", container=record.id, cause="commit"))
        return image

    async def size(self, container: str) -> int:
        """Bytes on the disk of what a container has written."""
        upper = self._upper(self.journal.get(container))
        return await self.in_thread(disk_usage, upper / "upper") if upper else 0

    # ---- within ----

    def _lowers(self, record: Record) -> tuple[str, ...]:
        image = self.recipes.image(self.find_image, record.image_id)
        return image.layers if image.id == host_view.NAME else (*image.layers, str(self.layout.scaffold))

    def _upper(self, record: Record) -> Path | None:
        """The folder with a container's upper directory; None if its changes are kept in memory, or there are none."""
        folder = Path(self.layout.folder(record.id))
        return folder if (folder / "upper").is_dir() else None

    @asynccontextmanager
    async def _rootfs(self, container: str) -> AsyncIterator[Rootfs]:
        record = self.journal.get(container)
        with open_rootfs(record, self._lowers(record), self._upper(record)) as root:
            yield root

    @asynccontextmanager
    async def _undisturbed(self, container: str) -> AsyncIterator[None]:
        """Raises IllegalTransition if a container was started while something was copied into its layers: what
        overlayfs shows of a layer that is changed below it is not defined, and the copy may have failed of it."""
        before = self.journal.get(container)
        error: PyrtError | None = None
        try:
            yield
        except PyrtError as failure:
            error = failure
        after = self.journal.get(before.id)
        if before.state not in LIVE and (after.state in LIVE or after.started != before.started):
            raise IllegalTransition(
                f"container {after.name} was started while files were copied into it, and may not see them",
                hint="copy them again, into the running container",
            ) from error
        if error:
            raise error

    def _diff(self, record: Record) -> list[FileChange]:
        upper = self._upper(record)
        if upper is None:
            if options_of(record).read_only:
                return []
            raise ContainerError(
                f"what container {record.name} changes is kept in memory", hint="look at it with pyrt exec"
            )
        base = _native.mount_layers(self._lowers(record))
        try:
            with _opened(upper / "upper") as folder:
                return changes(folder, base)
        finally:
            os.close(base)

    @asynccontextmanager
    async def _at_rest(self, record: Record, *, pause: bool) -> AsyncIterator[None]:
        if not pause or record.state is not State.RUNNING:
            yield
            return
        await self.pause(record.id, at_rest=True)
        try:
            yield
        finally:
            # It may have ended meanwhile, or somebody else has unpaused it.
            with trio.CancelScope(shield=True), suppress(IllegalTransition, ContainerNotFound):
                await self.unpause(record.id)

    def _no_layer(self, record: Record, base: Image) -> ContainerError:
        if base.id == host_view.NAME:
            return ContainerError(
                f"container {record.name} is a view of this machine, which has no layers to put one on",
                hint="pyrt export makes a tar of it",
            )
        return ContainerError(f"what container {record.name} changes is not kept on the disk", hint="pyrt export")


def _absolute(path: str) -> str:
    """Within a container every path begins at its root, as Docker has it."""
    if "\0" in path:
        raise UsageError("a path has a NUL character")
    return path if path.startswith("/") else f"/{path}"


def _of_host(path: str | os.PathLike[str]) -> str:
    """Absolute, with the "/" or "/." at its end that says what is meant."""
    text = os.fspath(path)
    end = "/." if text.endswith(("/.", "/./")) or text == "." else "/" if text.endswith("/") else ""
    return os.path.abspath(text).rstrip("/") + (end or "") or "/"


@contextmanager
def _slash() -> Iterator[int]:
    with _opened(Path("/")) as descriptor:
        yield descriptor


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
