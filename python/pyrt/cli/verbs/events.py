"""``pyrt events``."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from pyrt.cli import figures
from pyrt.cli.filters import Filters, has_label
from pyrt.cli.moments import SECOND, Moment, parse_moment
from pyrt.cli.parser import Help, Parser
from pyrt.cli.styles import paint, visible
from pyrt.cli.template import Map, compile_template
from pyrt.engine.events import ContainerEvent, ContainerExited, ContainerHealth, ImageEvent, encode_line
from pyrt.errors import ContainerNotFound

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
    "event": lambda event, value: value in {kind_of(event).split(maxsplit=1)[-1], *_docker_names(event)},
    "container": lambda event, value: (
        isinstance(event, ContainerEvent) and (event.name == value or event.container.startswith(value))
    ),
    "image": lambda event, value: isinstance(event, ContainerEvent | ImageEvent) and value in _image_names(event),
}

_HEALTH: Final = "health_status"
# What Docker calls them, where that is another word.
_ACTIONS: Final = {
    "container created": "create",
    "container started": "start",
    "container exited": "die",
    "container removed": "destroy",
    "container signaled": "kill",
    "container paused": "pause",
    "container unpaused": "unpause",
    "container renamed": "rename",
    "container updated": "update",
    "container out of memory": "oom",
    "exec started": "exec_start",
    "exec exited": "exec_die",
    "image pulled": "pull",
    "image loaded": "load",
    "image imported": "import",
    "image committed": "commit",
    "image saved": "save",
    "image tagged": "tag",
    "image untagged": "untag",
    "image removed": "delete",
}


def arguments(parser: Parser) -> None:
    what = "a sequence number, a time (2026-11-24T12:00:00Z, Unix seconds), or an age (90s, 1h30m)"
    parser.add_argument("--since", metavar="MOMENT", help=f"begin after it: {what}")
    parser.add_argument("--until", metavar="MOMENT", help="end with it")
    parser.add_argument("-f", "--filter", action="append", default=[], metavar="NAME=VALUE",
                        help=", ".join((*FILTERS, "label")))  # fmt: skip
    parser.add_argument("--json", action="store_true", help="a line of JSON each")
    parser.add_argument(
        "--format",
        metavar="TEMPLATE",
        help="json, or a Go template: '{{.Type}} {{.Action}} {{.Actor.ID}}', or of what --json shows",
    )


async def main(invocation: Invocation) -> int:
    options, console, engine = invocation.options, invocation.console, invocation.engine
    labels = _Labels(engine)
    filters = Filters.parse(options.filter, {**FILTERS, "label": labels.has})
    line = _formatter(options, labels, colour=console.has_colour())
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
    return float("inf") if until.time is None else (until.time - time.time_ns()) / SECOND


def _is_past(cursor: int, until: Moment) -> bool:
    return until.seq is not None and cursor >= until.seq


def _is_before(event: Event, until: Moment) -> bool:
    return (until.seq is None or event.seq <= until.seq) and (until.time is None or event.time <= until.time)


def kind_of(event: Event) -> str:
    """Like "container started"."""
    return str(event.__struct_config__.tag)


def docker_action(event: Event) -> str:
    """Like "start", "die", or "health_status: healthy"."""
    if isinstance(event, ContainerHealth):
        return f"{_HEALTH}: {event.status}"
    kind = kind_of(event)
    return _ACTIONS.get(kind, kind)


def _docker_names(event: Event) -> tuple[str, str]:
    """Docker's filters take what comes before a colon, too."""
    action = docker_action(event)
    return action, action.partition(":")[0]


class _Labels:
    """Labels of containers that events tell of: remembered, for some are gone when their last event comes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known = {record.id: record.labels for record in engine.containers()}

    def has(self, event: Event, wanted: str) -> bool:
        """Whether the event's container has the label."""
        return isinstance(event, ContainerEvent) and has_label(self.of(event), wanted)

    def of(self, event: Event) -> dict[str, str]:
        """Those of the event's container; none of what is not about one, or about one that is long gone."""
        if not isinstance(event, ContainerEvent):
            return {}
        if event.container not in self._known:
            with suppress(ContainerNotFound):
                self._known[event.container] = self._engine.inspect(event.container).labels
        return self._known.get(event.container, {})


def _docker_document(event: Event, labels: dict[str, str]) -> dict[str, Any]:
    """The fields of --json, and those of Docker's templates."""
    fields: dict[str, Any] = msgspec.json.decode(encode_line(event))
    subject = getattr(event, "container", "") or getattr(event, "image", "")
    told = {key: str(value) for key, value in fields.items() if key not in {"kind", "seq", "time", "container"}}
    attributes = Map({**labels, **told})
    if isinstance(event, ContainerExited):
        attributes["exitCode"] = str(event.exit_code)
    return {
        **fields,
        "Type": "image" if kind_of(event).startswith("image") else "container",
        "Action": docker_action(event),
        "Status": docker_action(event),
        "ID": subject,
        "From": getattr(event, "image", "") if isinstance(event, ContainerEvent) else "",
        "Actor": {"ID": subject, "Attributes": attributes},
        "Scope": "local",
        "Time": event.time // SECOND,
        "TimeNano": event.time,
    }


def _image_names(event: ContainerEvent | ImageEvent) -> tuple[str, ...]:
    return (event.image, event.name) if isinstance(event, ImageEvent) else (event.image,)


def _formatter(options: Any, labels: _Labels, *, colour: bool) -> Callable[[Event], str]:
    if options.json or options.format == "json":
        return lambda event: encode_line(event).decode() + "\n"
    if options.format:
        template = compile_template(options.format)
        return lambda event: template(_docker_document(event, labels.of(event))) + "\n"
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
