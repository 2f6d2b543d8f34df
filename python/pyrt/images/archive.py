"""``load`` and ``save``: images from and to the archives of other tools.

In: ``docker save`` of any age, OCI layouts as folder or tar, compressed or not, from a path or a pipe.
Out: Docker's archive, which Docker, Podman and skopeo load, or an OCI layout as tar or folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pyrt.errors import InvalidImage, UsageError
from pyrt.images import docker_archive, oci_layout
from pyrt.images.archive_files import open_archive
from pyrt.images.loading import Archive
from pyrt.images.reference import Reference
from pyrt.images.saving import Selected, folder_writer, tar_writer

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from pyrt.images.image import Image
    from pyrt.images.platform import Platform
    from pyrt.images.progress import Callback
    from pyrt.images.store import Store

Form = Literal["docker-archive", "oci-archive", "oci-dir"]


def load(
    store: Store,
    source: str | os.PathLike[str] | int,
    *,
    name: str | None = None,
    platform: Platform | None = None,
    progress: Callback | None = None,
) -> list[Image]:
    """Load all images of an archive; blocks, for a worker thread.

    ``source`` is a path (an archive or an OCI layout's folder) or an open descriptor (a pipe will do), which
    stays the caller's. ``name`` is given to the image besides its own names; the archive must then hold just
    one. Of an image for several platforms, ``platform`` (default: this host's) is taken; an image for one
    platform alone is loaded whatever it is, unless ``platform`` says otherwise.
    Raises ``InvalidImage``, ``PlatformNotFound``, ``UsageError``, ``StateError``. Each image is whole or absent.
    """
    reference = Reference.parse(name) if name else None
    with open_archive(store, source) as files:
        archive = Archive(store, files, progress)
        if files.has(oci_layout.INDEX):
            # What has manifest.json too was written to be read by both kinds of tools; the index says more.
            local_name = None if isinstance(source, int) or reference else oci_layout.local_name_of(source)
            images = oci_layout.load(archive, platform=platform, local_name=local_name)
        elif files.has(docker_archive.MANIFEST):
            images = docker_archive.load(archive)
        else:
            raise InvalidImage(
                f"{files.name} is not an image archive: it has neither manifest.json nor index.json",
                hint="a root file system is brought in by: pyrt import",
            )
    return [_named(store, images, reference)] if reference else images


def save(
    store: Store,
    images: Sequence[str],
    destination: str | os.PathLike[str] | int,
    *,
    form: Form = "docker-archive",
) -> None:
    """Save images, each once, under the names by which they are asked for; blocks, for a worker thread.

    ``images`` are names or ids (an image that is asked for by id is saved without a name); ``destination`` is a
    path, or an open descriptor for a tar. A path is written whole or not at all.
    Raises ``ImageNotFound``, ``InvalidImage`` (a blob is damaged), ``HostError`` (can't write), ``UsageError``.
    """
    if not images:
        raise UsageError("no image to save")
    with store.pinned():
        selected = [_select(store, text) for text in images]
        if form == "oci-dir":
            if isinstance(destination, int):
                raise UsageError("a folder can't be written to a descriptor", hint="name a path, or choose oci-archive")
            with folder_writer(destination) as writer:
                oci_layout.save(store, selected, writer)
            return
        write = oci_layout.save if form == "oci-archive" else docker_archive.save
        with tar_writer(destination) as writer:
            write(store, selected, writer)


def _named(store: Store, images: list[Image], reference: Reference) -> Image:
    if len(images) != 1:
        raise UsageError(f"the archive holds {len(images)} images, and one name can't be given to all")
    store.tag(images[0].id, str(reference))
    return store.find(images[0].id)


def _select(store: Store, text: str) -> Selected:
    image = store.find(text)
    try:
        reference = Reference.parse(text).with_default_tag()
    except UsageError:
        return Selected(image, ())
    plain = Reference(reference.registry, reference.repository, reference.tag)
    return Selected(image, (plain,) if str(plain) in image.names else ())
