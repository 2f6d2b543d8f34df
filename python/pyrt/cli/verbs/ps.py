"""``pyrt ps``."""

from __future__ import annotations

import re
import shlex
import time
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from pyrt.cli import figures
from pyrt.cli.filters import Filters, has_label
from pyrt.cli.listing import Column, add_format_options, render
from pyrt.cli.parser import Help, Parser
from pyrt.engine.recipe import options_of
from pyrt.engine.states import LIVE, State
from pyrt.errors import PyrtError, UsageError
from pyrt.images.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pyrt.cli.verbs import Invocation
    from pyrt.engine.engine import Engine
    from pyrt.engine.record import Record

HELP = Help(
    "ps [OPTIONS]",
    "Lists the containers that run, or all that are kept.",
    (
        ("pyrt ps -a", "also those that have ended"),
        ("pyrt ps -aq -f status=exited", "their ids alone: pyrt rm $(...)"),
        ("pyrt ps --format '{{.Names}}: {{.Status}}'", ""),
        ("pyrt ps -a --json", "a line of JSON each"),
    ),
)

COLUMNS: Final = (
    Column("ID", "CONTAINER ID"),
    Column("Image", "IMAGE"),
    Column("Command", "COMMAND"),
    Column("RunningFor", "CREATED"),
    Column("Status", "STATUS"),
    Column("Ports", "PORTS"),
    Column("Names", "NAMES"),
)
TITLES: Final = {"CreatedAt": "CREATED AT", "State": "STATE", "Labels": "LABELS", "Pid": "PID"}

_SHOWN: Final = LIVE - {State.STARTING} | {State.RESTARTING}
_LONGEST_COMMAND: Final = 20
_DOCKER_STATES: Final = {
    State.STARTING: "created",
    State.STOPPING: "running",
    State.FAILED: "created",
}
"""States that Docker has no word for, in its nearest."""

FILTERS: Final[dict[str, Callable[[Record, str], bool]]] = {
    "id": lambda record, value: record.id.startswith(value),
    "name": lambda record, value: _is_called(record.name, value),
    "label": lambda record, value: has_label(record.labels, value),
    "status": lambda record, value: value in {str(record.state), docker_state(record)},
    "health": lambda record, value: value == (record.health.status if record.health else "none"),
    "exited": lambda record, value: record.status is not None and str(record.status.exit_code) == value,
    "ancestor": lambda record, value: _is_ancestor(record, value),
    "network": lambda record, value: options_of(record).network == value,
    "volume": lambda record, value: any(value in {each.source, each.target} for each in options_of(record).mounts),
}
_RELATIVE: Final = ("before", "since")
"""Filters whose value is another container: what was made before it, or after it."""


def arguments(parser: Parser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="also containers that do not run")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids alone")
    parser.add_argument("-f", "--filter", action="append", default=[], metavar="NAME=VALUE",
                        help=", ".join((*FILTERS, *_RELATIVE)))  # fmt: skip
    parser.add_argument("-n", "--last", type=int, default=0, metavar="COUNT", help="the newest so many, running or not")
    parser.add_argument("-l", "--latest", action="store_true", help="the newest, running or not")
    parser.add_argument("-s", "--size", action="store_true", help="what each has written, and with its image")
    parser.add_argument("--no-trunc", action="store_true", help="whole ids and commands")
    add_format_options(parser)


async def main(invocation: Invocation) -> int:
    options, engine = invocation.options, invocation.engine
    filters = Filters.parse(options.filter, FILTERS | _relative(engine))
    last = 1 if options.latest else options.last
    shows_all = options.all or last or "status" in filters or "exited" in filters
    found = [record for record in engine.containers() if shows_all or record.state in _SHOWN]
    records = [record for record in found if filters.take(record) and not record.is_gone][: last or None]
    if options.quiet and not options.format:
        text = "".join(f"{record.id if options.no_trunc else figures.short(record.id)}\n" for record in records)
    else:
        now = time.time_ns()
        # Of a thousand containers nothing is worked out that is not shown.
        fields = None if options.format else [column.field for column in COLUMNS]
        rows = [row_of(record, now, whole=options.no_trunc, fields=fields) for record in records]
        if options.size or ".Size" in (options.format or ""):
            for row, record in zip(rows, records, strict=True):
                row["Size"] = await _size(engine, record)
        for row in rows if options.format not in {None, "", "json"} else ():
            row["Label"] = partial(_label, row["Labels"])
        columns = (*COLUMNS, Column("Size", "SIZE")) if options.size else COLUMNS
        text = render(rows, columns, options.format, TITLES)
    await invocation.console.out(text)
    return 0


def _relative(engine: Engine) -> dict[str, Callable[[Record, str], bool]]:
    return {
        "before": lambda record, value: record.created < engine.inspect(value).created,
        "since": lambda record, value: record.created > engine.inspect(value).created,
    }


async def _size(engine: Engine, record: Record) -> str:
    written = await engine.size(record.id)
    try:
        image = engine.find_image(record.image_id).size
    except PyrtError:
        image = 0  # A view of this machine, or an image that is gone.
    return f"{figures.size(written)} (virtual {figures.size(written + image)})"


def _label(labels: str, name: str) -> str:
    return dict(pair.partition("=")[::2] for pair in labels.split(",")).get(name, "")


def row_of(record: Record, now: int, *, whole: bool, fields: Collection[str] | None = None) -> dict[str, Any]:
    """One container, under the names that Docker's templates use; of all ``fields``, or of those that are wanted."""
    return {name: _FIELDS[name](record, now, whole) for name in fields or _FIELDS}


# Quoting is what took longest of a list of a thousand.
@lru_cache(maxsize=4096)
def _command(words: tuple[str, ...], whole: bool) -> str:
    command = shlex.join(words)
    if not whole and len(command) > _LONGEST_COMMAND:
        command = command[: _LONGEST_COMMAND - 1] + "…"
    return f'"{command}"'


_FIELDS: Final[dict[str, Callable[[Record, int, bool], Any]]] = {
    "ID": lambda record, _, whole: record.id if whole else figures.short(record.id),
    "Image": lambda record, *_: record.image,
    "Command": lambda record, _, whole: _command(record.command, whole),
    "CreatedAt": lambda record, *_: figures.clock(figures.moment_of(record.created)),
    "RunningFor": lambda record, now, _: figures.since(record.created, now),
    "State": lambda record, *_: docker_state(record),
    "Status": lambda record, now, _: status_of(record, now),
    "Ports": lambda *_: "",
    "Names": lambda record, *_: record.name,
    "Networks": lambda record, *_: options_of(record).network,
    "Mounts": lambda record, *_: ",".join(mount.source or mount.target for mount in options_of(record).mounts),
    "LocalVolumes": lambda *_: "0",
    "Labels": lambda record, *_: ",".join(f"{key}={value}" for key, value in record.labels.items()),
    "Pid": lambda record, *_: record.pid if record.state in LIVE else 0,
}


def docker_state(record: Record) -> str:
    """The state in Docker's words."""
    return _DOCKER_STATES.get(record.state, str(record.state))


def status_of(record: Record, now: int) -> str:
    """Like "Up 2 minutes" or "Exited (137) 3 hours ago"; what Docker does not tell is added to it."""
    if (remark := _UP.get(record.state)) is not None:
        up = f"Up {figures.span((now - (record.started or now)) / 1e9)}"
        if record.health and record.state is State.RUNNING:
            word = "health: starting" if record.health.status == "starting" else record.health.status
            return f"{up} ({word})"
        return f"{up}{remark}"
    if record.state == State.RESTARTING and record.status:
        ended = figures.since(record.finished, now)
        return f"Restarting ({record.status.exit_code}) {ended}"
    if record.state == State.EXITED and record.status:
        ended = figures.since(record.finished, now)
        verdict = "" if record.status.verdict in {"exited", "signaled"} else f", {record.status.verdict}"
        return f"Exited ({record.status.exit_code}{verdict}) {ended}"
    return str(record.state).capitalize()


_UP: Final = {State.RUNNING: "", State.PAUSED: " (Paused)", State.STOPPING: " (stopping)"}


def _is_called(name: str, pattern: str) -> bool:
    """Docker takes a regular expression, and has a / before each name."""
    try:
        return bool(re.search(pattern, name) or re.search(pattern, f"/{name}"))
    except re.error as error:
        raise UsageError(f"the filter name={pattern} is no regular expression: {error}") from None


def _is_ancestor(record: Record, value: str) -> bool:
    if value in {record.image, record.image_id} or _is_short(record.image_id, value):
        return True
    try:
        asked, wanted = (Reference.parse(text).with_default_tag() for text in (record.image, value))
    except UsageError:
        return False
    return asked == wanted


def _is_short(identifier: str, value: str) -> bool:
    return len(value) >= 4 and identifier.removeprefix("sha256:").startswith(value.removeprefix("sha256:"))
