"""``pyrt load``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.cli.progress import progress_for
from pyrt.errors import UsageError
from pyrt.images.platform import Platform
from pyrt.images.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrt.cli.verbs import Invocation
    from pyrt.images.image import Image

HELP = Help(
    "load [OPTIONS]",
    "Gets images from an archive that another tool wrote: docker save, podman save, skopeo, buildah, umoci.",
    (
        ("docker save debian:12 | pyrt load", ""),
        ("pyrt load -i images.tar.zst", "compressed or not"),
        ("pyrt load -i oci-layout/", "a folder"),
        ("pyrt load -i layout/ --name base:1", "under this name"),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("-i", "--input", metavar="PATH", help="a file or a folder instead of stdin")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    parser.add_argument("--name", metavar="NAME[:TAG]", help="a name for the one image in it")
    parser.add_argument("--platform", metavar="OS/ARCH", help="which of an image's variants")


async def main(invocation: Invocation) -> int:
    options, console = invocation.options, invocation.console
    if options.input is None and console.terminals[0]:
        raise UsageError("there is no archive: stdin is a terminal", hint="pyrt load -i FILE, or pipe one in")
    opened = None if options.input else await console.input_file()
    try:
        source = console.path(options.input) if opened is None else opened
        async with progress_for(console, quiet=options.quiet) as progress:
            images = await invocation.engine.load(
                source, name=options.name, platform=_platform(options.platform), progress=progress
            )
    finally:
        if opened is not None:
            os.close(opened)
    await console.out(_report(images))
    return 0


def _platform(text: str | None) -> Platform | None:
    return Platform.parse(text) if text else None


def _report(images: Sequence[Image]) -> str:
    lines = []
    for image in images:
        names = [Reference.parse(name).familiar() for name in image.names]
        lines += [f"Loaded image: {name}\n" for name in names] or [f"Loaded image ID: {image.id}\n"]
    return "".join(lines)
