"""``pyrt images``, ``pyrt image ls``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pyrt.cli import figures
from pyrt.cli.filters import Filters
from pyrt.cli.listing import Column, add_format_options, render
from pyrt.cli.parser import Help, Parser
from pyrt.images.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyrt.cli.verbs import Invocation
    from pyrt.images.image import Image

HELP = Help(
    "images [OPTIONS] [REPOSITORY[:TAG]]",
    "Lists the images that are here.",
    (
        ("pyrt images", ""),
        ("pyrt images debian", "of one repository"),
        ("pyrt images -q -f dangling=true", "ids of those without a name"),
        ("pyrt images --json", "a line of JSON each"),
    ),
)

NONE: Final = "<none>"
COLUMNS: Final = (
    Column("Repository", "REPOSITORY"),
    Column("Tag", "TAG"),
    Column("ID", "IMAGE ID"),
    Column("CreatedSince", "CREATED"),
    Column("Size", "SIZE"),
)
DIGEST: Final = Column("Digest", "DIGEST")
TITLES: Final = {"Digest": "DIGEST", "CreatedAt": "CREATED AT", "Platform": "PLATFORM"}

FILTERS: Final[dict[str, Callable[[Image, str], bool]]] = {
    "dangling": lambda image, value: bool(image.names) != (value in {"true", "1"}),
    "label": lambda image, value: _has_label(image, value),
    "reference": lambda image, value: any(_is_called(name, value) for name in image.names),
}


def arguments(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", metavar="REPOSITORY[:TAG]", help="images of this name alone")
    parser.add_argument("-a", "--all", action="store_true", help="as without: pyrt has no hidden images")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids alone")
    parser.add_argument("-f", "--filter", action="append", default=[], metavar="NAME=VALUE", help=", ".join(FILTERS))
    parser.add_argument("--digests", action="store_true", help="show digests too")
    parser.add_argument("--no-trunc", action="store_true", help="whole ids")
    add_format_options(parser)


async def main(invocation: Invocation) -> int:
    options = invocation.options
    wanted = [*options.filter, *([f"reference={options.name}"] if options.name else [])]
    filters = Filters.parse(wanted, FILTERS)
    images = [image for image in await invocation.engine.images() if filters.take(image)]
    if options.quiet and not options.format:
        ids = dict.fromkeys(image.id if options.no_trunc else figures.short(image.id) for image in images)
        await invocation.console.out("".join(f"{identifier}\n" for identifier in ids))
        return 0
    now = datetime.now(UTC)
    rows = [row for image in images for row in _rows(image, now, options.name, whole=options.no_trunc)]
    columns = (*COLUMNS[:2], DIGEST, *COLUMNS[2:]) if options.digests else COLUMNS
    await invocation.console.out(render(rows, columns, options.format, TITLES))
    return 0


def _rows(image: Image, now: datetime, wanted: str | None, *, whole: bool) -> Iterator[dict[str, Any]]:
    """A row for each of its names, as Docker does."""
    names = [name for name in image.names if not wanted or _is_called(name, wanted)]
    for repository, tag in [split_name(name) for name in names] or [(_pulled_from(image), NONE)]:
        yield {
            "Repository": repository,
            "Tag": tag,
            "ID": image.id if whole else figures.short(image.id),
            "Digest": image.digest,
            "CreatedAt": figures.clock(image.created),
            "CreatedSince": figures.ago(image.created, now),
            "Size": figures.size(image.size),
            "Platform": str(image.platform),
        }


def split_name(name: str) -> tuple[str, str]:
    """Repository and tag of a canonical name, as short as Docker shows them."""
    reference = Reference.parse(name)
    return Reference(reference.registry, reference.repository).familiar(), reference.tag or NONE


def _pulled_from(image: Image) -> str:
    return split_name(image.repo_digests[0])[0] if image.repo_digests else NONE


def _is_called(name: str, wanted: str) -> bool:
    ours, asked = Reference.parse(name), Reference.parse(wanted)
    return (ours.registry, ours.repository) == (asked.registry, asked.repository) and asked.tag in {None, ours.tag}


def _has_label(image: Image, value: str) -> bool:
    key, equals, wanted = value.partition("=")
    return key in image.config.labels and (not equals or image.config.labels[key] == wanted)
