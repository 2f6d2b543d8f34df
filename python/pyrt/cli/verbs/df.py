"""``pyrt system df``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pyrt.cli import figures
from pyrt.cli.listing import Column, add_format_options, render
from pyrt.cli.parser import Help, Parser
from pyrt.cli.verbs.images import NONE
from pyrt.engine.differing import disk_usage
from pyrt.engine.states import LIVE

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation
    from pyrt.images.image import Usage

HELP = Help(
    "system df [OPTIONS]",
    "What takes how much of the disk.",
    (("pyrt system df -v", "image by image"),),
)

COLUMNS: Final = (
    Column("Type", "TYPE"),
    Column("TotalCount", "TOTAL"),
    Column("Active", "ACTIVE"),
    Column("Size", "SIZE"),
    Column("Reclaimable", "RECLAIMABLE"),
)
IMAGE_COLUMNS: Final = (
    Column("Name", "IMAGE"),
    Column("ID", "IMAGE ID"),
    Column("Size", "SIZE"),
    Column("Shared", "SHARED"),
    Column("Unique", "UNIQUE"),
    Column("Active", "USED"),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="image by image")
    add_format_options(parser)


async def main(invocation: Invocation) -> int:
    engine, options = invocation.engine, invocation.options
    usage = await engine.usage()
    if options.verbose:
        text = render(_image_rows(usage), IMAGE_COLUMNS, options.format, {})
    else:
        records = engine.containers()
        idle = [record.id for record in records if record.state not in LIVE]
        sizes = await engine.in_thread(_container_sizes, str(engine.layout.containers))
        rows = [_image_row(usage), _container_row(sizes, len(records), idle)]
        text = render(rows, COLUMNS, options.format, {})
    await invocation.console.out(text)
    return 0


def _image_row(usage: Usage) -> dict[str, Any]:
    active = sum(image.in_use for image in usage.images)
    return _row("Images", len(usage.images), active, usage.size, usage.reclaimable)


def _container_row(sizes: dict[str, int], count: int, idle: list[str]) -> dict[str, Any]:
    reclaimable = sum(sizes.get(identifier, 0) for identifier in idle)
    return _row("Containers", count, count - len(idle), sum(sizes.values()), reclaimable)


def _row(kind: str, count: int, active: int, size: int, reclaimable: int) -> dict[str, Any]:
    percent = f" ({100 * reclaimable // size}%)" if size else ""
    return {
        "Type": kind,
        "TotalCount": str(count),
        "Active": str(active),
        "Size": figures.size(size),
        "Reclaimable": figures.size(reclaimable) + percent,
    }


def _image_rows(usage: Usage) -> list[dict[str, Any]]:
    return [
        {
            "Name": image.names[0] if image.names else NONE,
            "ID": figures.short(image.id),
            "Size": figures.size(image.size),
            "Shared": figures.size(image.shared),
            "Unique": figures.size(image.unique),
            "Active": "yes" if image.in_use else "no",
        }
        for image in usage.images
    ]


def _container_sizes(folder: str) -> dict[str, int]:
    """Bytes on the disk of what each container has written."""
    return {
        entry.name: disk_usage(Path(entry.path)) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)
    }
