"""``pyrt image history``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pyrt.cli import figures
from pyrt.cli.listing import Column, add_format_options, render
from pyrt.cli.parser import Help, Parser, boolean
from pyrt.images.config import parse_time
from pyrt.threads import in_thread

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation
    from pyrt.images.image import Image

HELP = Help(
    "image history [OPTIONS] IMAGE",
    "How an image was made, the newest step first.",
    (("pyrt image history --no-trunc debian:12", ""),),
)

COLUMNS: Final = (
    Column("ID", "IMAGE"),
    Column("CreatedSince", "CREATED"),
    Column("CreatedBy", "CREATED BY"),
    Column("Size", "SIZE"),
    Column("Comment", "COMMENT"),
)
_LONGEST_COMMAND: Final = 45


def arguments(parser: Parser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="a name or an id")
    parser.add_argument("--no-trunc", action="store_true", help="whole commands and ids")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids alone")
    parser.add_argument("-H", "--human", type=boolean, nargs="?", const=True, default=True, metavar="BOOL",
                        help="sizes and ages as people read them (true)")  # fmt: skip
    add_format_options(parser)


async def main(invocation: Invocation) -> int:
    options, engine = invocation.options, invocation.engine
    image = engine.find_image(options.image, environ=invocation.console.environment)
    layers = await in_thread(engine.store.layers_of, image)
    rows = _rows(image, [layer.size for layer in layers], whole=options.no_trunc, human=options.human)
    if options.quiet and not options.format:
        await invocation.console.out("".join(f"{row['ID']}\n" for row in rows))
        return 0
    await invocation.console.out(render(rows, COLUMNS, options.format, {"CreatedAt": "CREATED AT"}))
    return 0


def _rows(image: Image, sizes: list[int], *, whole: bool, human: bool) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    remaining = iter(sizes)
    rows = []
    for line in image.config.history:
        created = parse_time(line.created)
        size = 0 if line.empty_layer else next(remaining, 0)
        by = line.created_by.replace("\t", " ")
        rows.append(
            {
                "ID": "<missing>",
                "CreatedAt": figures.clock(created),
                "CreatedSince": figures.ago(created, now) if human else line.created,
                "CreatedBy": by if whole or len(by) <= _LONGEST_COMMAND else by[: _LONGEST_COMMAND - 1] + "…",
                "Size": figures.size(size) if human else str(size),
                "Comment": line.comment,
            }
        )
    if rows:
        rows[-1]["ID"] = image.id if whole else figures.short(image.id)
    return rows[::-1]
