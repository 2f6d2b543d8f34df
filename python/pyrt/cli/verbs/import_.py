"""``pyrt import``, ``pyrt image import``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.errors import UsageError
from pyrt.images.platform import Platform

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "import [OPTIONS] FILE|FOLDER|- [NAME[:TAG]]",
    "Makes an image of a root file system: a folder or a tar, compressed or not.",
    (
        ("mmdebstrap --variant=minbase bookworm - | pyrt import - debian:mine", ""),
        ("pyrt import -c 'CMD [\"/bin/sh\"]' rootfs/ busybox:mine", ""),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("source", metavar="FILE|FOLDER|-", help="the root file system; -: a tar on stdin")
    parser.add_argument("name", nargs="?", metavar="NAME[:TAG]", help="what the image is to be called")
    parser.add_argument(
        "-c",
        "--change",
        action="append",
        default=[],
        metavar="LINE",
        help="a line of a Dockerfile: CMD, ENV, USER, ...",
    )
    parser.add_argument("-m", "--message", default="", metavar="TEXT", help="a remark in the image's history")
    parser.add_argument("--platform", metavar="OS/ARCH", help="what it is for, if not for this machine")


async def main(invocation: Invocation) -> int:
    options, console = invocation.options, invocation.console
    if options.source == "-" and console.terminals[0]:
        raise UsageError("there is no root file system: stdin is a terminal", hint="pipe a tar in, or name it")
    opened = await console.input_file() if options.source == "-" else None
    try:
        image = await invocation.engine.import_image(
            console.path(options.source) if opened is None else opened,
            name=options.name,
            changes=options.change,
            platform=Platform.parse(options.platform) if options.platform else None,
            message=options.message,
        )
    finally:
        if opened is not None:
            os.close(opened)
    await console.out(f"{image.id}\n")
    return 0
