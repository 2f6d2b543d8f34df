"""``pyrt events``."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import trio

from pyrt.cli import figures
from pyrt.cli.filters import Filters
from pyrt.cli.parser import Help, Parser
from pyrt.cli.styles import paint, visible
from pyrt.cli.template import compile_template
from pyrt.engine.events import ContainerEvent, ImageEvent, encode_line
from pyrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrt.cli.verbs import Invocation
    from pyrt.engine.engine import Engine
    from pyrt.engine.events import Event
    from pyrt.engine.feed import EventStream

HELP = Help(
    "events [OPTIONS]",
    "Prints what happens to containers and images, each event once and in order, and goes on until it is ended.",
    (
        ("pyrt events --since 0 --json", "all that is kept, then what comes"),
        ("pyrt events --since 10m --until 0s", "of the last ten minutes"),
        ("pyrt events --since 4711", "what came after event 4711"),
        ("pyrt events -f type=container -f container=web", ""),
    ),
)

FILTERS: Final[dict[str, Callable[[Event, str], bool]]] = {
    "type": lambda event, value: kind_of(event).split()[0] == value,
    "event": lambda event, value: kind_of(event).split(maxsplit=1)[-1] == value,
    "container": lambda event, value: (
        isinstance(event, ContainerEvent) and (event.name == value or event.container.startswith(value))
    ),
    "image": lambda event, value: isinstance(event, ContainerEvent | ImageEvent) and value in _image_names(event),
}

_SECOND: Final = 1_000_000_000
# No journal gets this far, and no clock has been before it since 2001.
_FIRST_UNIX_TIME: Final = 1_000_000_000
_SPAN: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")


class Moment(NamedTuple):
    """A place among the events: after a sequence number, or a time in nanoseconds."""

    seq: int | None = None
    time: int | None = None


def arguments(parser: Parser) -> None:
    what = "a sequence number, a time (2026-11-24T12:00:00Z, Unix seconds), or an age (90s, 1h30m)"
    parser.add_argument("--since", metavar="MOMENT", help=f"begin after it: {what}")
    parser.add_argument("--until", metavar="MOMENT", help="end with it")
    parser.add_argument("-f", "--filter", action="append", default=[], metavar="NAME=VALUE", help=", ".join(FILTERS))
    parser.add_argument("--json", action="store_true", help="a line of JSON each")
    parser.add_argument("--format", metavar="TEMPLATE", help="json, or a Go template on what --json shows")


async def main(invocation: Invocation) -> int:
    options, console, engine = invocation.options, invocation.console, invocation.engine
    filters = Filters.parse(options.filter, FILTERS)
    line = _formatter(options, colour=console.has_colour())
    until = parse_moment(options.until) if options.until else Moment()
    cursor = _cursor(engine, parse_moment(options.since)) if options.since else None

    async def show(stream: EventStream, seconds: float) -> None:
        """Prints what comes within so many seconds, up to the end that was asked for."""
        deadline = trio.current_time() + seconds
        while not _is_past(stream.cursor, until):
            with trio.CancelScope(deadline=deadline) as waiting:
                batch = await stream.receive_batch()
            if waiting.cancelled_caught or not batch:
                return
            await console.out("".join(line(each) for each in batch if _is_before(each, until) and filters.take(each)))

    stream = engine.events(cursor)
    if (seconds := _seconds_to(until)) > 0:
        await show(stream, seconds)
    if until.time is not None:
        # What had happened by then and was not read yet.
        await show(engine.events(stream.cursor, follow=False), float("inf"))
    return 0


def parse_moment(text: str) -> Moment:
    """What --since and --until take."""
    if text.isdigit():
        number = int(text)
        return Moment(time=number * _SECOND) if number >= _FIRST_UNIX_TIME else Moment(seq=number)
    if match := _SPAN.fullmatch(text):
        hours, minutes, seconds = (float(part or 0) for part in match.groups())
        return Moment(time=time.time_ns() - int((hours * 3600 + minutes * 60 + seconds) * _SECOND))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text} is no moment", hint="a sequence number, a time like 2026-11-24T12:00:00Z, or an age like 10m"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return Moment(time=int(moment.timestamp() * _SECOND))


def _cursor(engine: Engine, since: Moment) -> int:
    """The sequence number after which to begin: for a time it is searched for, as both grow together."""
    if since.time is None:
        return since.seq or 0
    oldest, newest = engine.journal.span()
    low, high = oldest - 1, newest
    while low < high:
        middle = (low + high) // 2
        following = engine.journal.events_after(middle, 1)
        if following and following[0].time < since.time:
            low = following[0].seq
        else:
            high = middle
    return low


def _seconds_to(until: Moment) -> float:
    return float("inf") if until.time is None else (until.time - time.time_ns()) / _SECOND


def _is_past(cursor: int, until: Moment) -> bool:
    return until.seq is not None and cursor >= until.seq


def _is_before(event: Event, until: Moment) -> bool:
    return (until.seq is None or event.seq <= until.seq) and (until.time is None or event.time <= until.time)


def kind_of(event: Event) -> str:
    """Like "container started"."""
    return str(event.__struct_config__.tag)


def _image_names(event: ContainerEvent | ImageEvent) -> tuple[str, ...]:
    return (event.image, event.name) if isinstance(event, ImageEvent) else (event.image,)


def _formatter(options: Any, *, colour: bool) -> Callable[[Event], str]:
    if options.json or options.format == "json":
        return lambda event: encode_line(event).decode() + "\n"
    if options.format:
        template = compile_template(options.format)
        return lambda event: template(msgspec.json.decode(encode_line(event))) + "\n"
    return lambda event: _text(event, colour=colour)


def _text(event: Event, *, colour: bool) -> str:
    fields = msgspec.to_builtins(event)
    about = fields.pop("container", "") or fields.get("image", "")
    for shown in ("kind", "seq", "time"):
        fields.pop(shown, None)
    details = ", ".join(f"{key}={value}" for key, value in fields.items() if value not in {"", about})
    kind = paint(kind_of(event), "bold", colour=colour)
    stamp = paint(figures.stamp(event.time), "dim", colour=colour)
    return f"{stamp} {event.seq} {kind} {visible(figures.short(about))} ({visible(details)})\n"
