"""Getting images from registries on behalf of a user: with their credentials, and with progress on their terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyrt.cli.progress import progress_for
from pyrt.errors import ImageNotFound, PlatformNotFound
from pyrt.images.platform import Platform, fits
from pyrt.images.reference import Reference

if TYPE_CHECKING:
    from pyrt.cli.console import Console
    from pyrt.engine.engine import Engine
    from pyrt.images.image import Image

HOST: Final = "host"
"""The name of the image that is this machine's own files."""


async def pull(console: Console, engine: Engine, name: str, *, platform: str | None, quiet: bool) -> Image:
    """Pulls an image; the environment says where the user's credentials are."""
    async with progress_for(console, quiet=quiet) as progress:
        return await engine.pull(name, platform=platform, progress=progress, environ=console.environment)


async def find_or_pull(
    console: Console, engine: Engine, name: str, *, when: str, platform: str | None, quiet: bool
) -> Image | str:
    """The image to run; ``when`` is always, missing or never, as Docker's --pull has it."""
    if name == HOST:
        return HOST
    if when == "always":
        return await pull(console, engine, name, platform=platform, quiet=quiet)
    try:
        return _of_platform(engine.find_image(name, environ=console.environment), platform)
    except (ImageNotFound, PlatformNotFound):
        if when == "never":
            raise
    if not quiet:
        tagged = Reference.parse(name).with_default_tag().familiar()
        await console.err(f"Unable to find image '{tagged}' locally\n")
    return await pull(console, engine, name, platform=platform, quiet=quiet)


def _of_platform(image: Image, wanted: str | None) -> Image:
    """The image, if it is for the platform that was asked for: one of another must not run in its place."""
    if wanted and not fits(image.platform, Platform.parse(wanted)):
        raise PlatformNotFound(
            f"the image that is here is for {image.platform}, not for {wanted}", available=(str(image.platform),)
        )
    return image
