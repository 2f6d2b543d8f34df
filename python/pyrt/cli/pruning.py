"""What the verbs that prune have in common: which things, and what is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pyrt.cli import figures
from pyrt.cli.filters import Filters, has_label
from pyrt.cli.moments import SECOND, parse_moment
from pyrt.engine.states import LIVE, State
from pyrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyrt.cli.parser import Parser
    from pyrt.engine.engine import Engine
    from pyrt.engine.record import Record
    from pyrt.images.image import Image


class _Thing(NamedTuple):
    """Unix time in nanoseconds at which it was made, and its labels."""

    created: int
    labels: Mapping[str, str]


_FILTERS: Final[dict[str, Callable[[_Thing, str], bool]]] = {
    "until": lambda thing, value: thing.created <= _time(value),
    "label": lambda thing, value: has_label(thing.labels, value),
    "label!": lambda thing, value: not has_label(thing.labels, value),
}


def add_prune_filter(parser: Parser) -> None:
    """--filter."""
    parser.add_argument(
        "--filter", action="append", default=[], metavar="NAME=VALUE", help="until=24h, label=NAME[=VALUE], label!=..."
    )


class Wanted:
    """What the filters leave. Raises UsageError for one that is not known."""

    def __init__(self, filters: Sequence[str]) -> None:
        self._filters = Filters.parse(filters, _FILTERS)
        self._given = bool(filters)
        for value in (text.partition("=")[2] for text in filters if text.startswith("until=")):
            _time(value)

    def takes(self, record: Record) -> bool:
        """Whether a container may be removed."""
        return self._filters.take(_Thing(record.created, record.labels))

    async def kept_images(self, engine: Engine) -> list[str]:
        """The ids of images that may not be removed."""
        if not self._given:
            return []
        return [image.id for image in await engine.images() if not self._filters.take(_thing_of(image))]


def _thing_of(image: Image) -> _Thing:
    created = int(image.created.timestamp() * SECOND) if image.created else 0
    return _Thing(created, image.config.labels)


def _time(text: str) -> int:
    moment = parse_moment(text)
    if moment.time is None:
        raise UsageError(f"{text} is no time", hint="such as 24h, or 2026-11-24T12:00:00Z")
    return moment.time


async def prune_containers(engine: Engine, wanted: Wanted) -> tuple[str, int]:
    """Removes them; what is told of it, and how many bytes they had on the disk."""
    gone = {*LIVE, State.REMOVING}
    idle = [record for record in engine.containers() if record.state not in gone and wanted.takes(record)]
    sizes = {record.id: await engine.size(record.id) for record in idle}
    removed = await engine.prune_containers(lambda record: record.id in sizes)
    if not removed:
        return "", 0
    lines = "".join(f"{record.id}\n" for record in removed)
    return f"Deleted containers:\n{lines}\n", sum(sizes[record.id] for record in removed)


def reclaimed(size: int) -> str:
    """The last line."""
    return f"Total reclaimed space: {figures.size(size)}\n"
