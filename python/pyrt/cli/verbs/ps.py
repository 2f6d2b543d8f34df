"""``pyrt ps``."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pyrt.cli import figures
from pyrt.cli.filters import Filters
from pyrt.cli.listing import Column, add_format_options, render
from pyrt.cli.parser import Help, Parser
from pyrt.engine.states import LIVE, State
from pyrt.errors import UsageError
from pyrt.images.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrt.cli.verbs import Invocation
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

_SHOWN: Final = LIVE - {State.STARTING}
_LONGEST_COMMAND: Final = 20
_DOCKER_STATES: Final = {
    State.STARTING: "created",
    State.STOPPING: "running",
    State.FAILED: "created",
}
"""States that Docker has no word for, in its nearest."""

FILTERS: Final[dict[str, Callable[[Record, str], bool]]] = {
    "id": lambda record, value: record.id.startswith(value),
    "name": lambda record, value: value in record.name,
    "label": lambda record, value: _has_label(record, value),
    "status": lambda record, value: value in {str(record.state), docker_state(record)},
    "exited": lambda record, value: record.status is not None and str(record.status.exit_code) == value,
    "ancestor": lambda record, value: _is_ancestor(record, value),
}


def arguments(parser: Parser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="also containers that do not run")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids alone")
    parser.add_argument("-f", "--filter", action="append", default=[], metavar="NAME=VALUE", help=", ".join(FILTERS))
    parser.add_argument("-n", "--last", type=int, default=0, metavar="COUNT", help="the newest so many, running or not")
    parser.add_argument("-l", "--latest", action="store_true", help="the newest, running or not")
    parser.add_argument("--no-trunc", action="store_true", help="whole ids and commands")
    add_format_options(parser)


async def main(invocation: Invocation) -> int:
    options = invocation.options
    filters = Filters.parse(options.filter, FILTERS)
    last = 1 if options.latest else options.last
    shows_all = options.all or last or "status" in filters or "exited" in filters
    found = [record for record in invocation.engine.containers() if shows_all or record.state in _SHOWN]
    records = [record for record in found if filters.take(record) and not _is_gone(record)][: last or None]
    if options.quiet and not options.format:
        text = "".join(f"{record.id if options.no_trunc else figures.short(record.id)}\n" for record in records)
    else:
        now = datetime.now(UTC)
        rows = [row_of(record, now, whole=options.no_trunc) for record in records]
        text = render(rows, COLUMNS, options.format, TITLES)
    await invocation.console.out(text)
    return 0


def _is_gone(record: Record) -> bool:
    """Of a container that keeps nothing the user has seen the last; what is left of it is the engine's affair."""
    return record.auto_remove and record.state is State.REMOVING


def row_of(record: Record, now: datetime, *, whole: bool) -> dict[str, Any]:
    """One container, under the names that Docker's templates use."""
    command = shlex.join(record.command)
    if not whole and len(command) > _LONGEST_COMMAND:
        command = command[: _LONGEST_COMMAND - 1] + "…"
    created = figures.moment_of(record.created)
    return {
        "ID": record.id if whole else figures.short(record.id),
        "Image": record.image,
        "Command": f'"{command}"',
        "CreatedAt": figures.clock(created),
        "RunningFor": figures.ago(created, now),
        "State": docker_state(record),
        "Status": status_of(record, now),
        "Ports": "",
        "Names": record.name,
        "Labels": ",".join(f"{key}={value}" for key, value in record.labels.items()),
        "Pid": record.pid if record.state in LIVE else 0,
    }


def docker_state(record: Record) -> str:
    """The state in Docker's words."""
    return _DOCKER_STATES.get(record.state, str(record.state))


def status_of(record: Record, now: datetime) -> str:
    """Like "Up 2 minutes" or "Exited (137) 3 hours ago"; what Docker does not tell is added to it."""
    if record.state in {State.RUNNING, State.PAUSED, State.STOPPING}:
        started = figures.moment_of(record.started) or now
        up = f"Up {figures.span((now - started).total_seconds())}"
        return {State.PAUSED: f"{up} (Paused)", State.STOPPING: f"{up} (stopping)"}.get(record.state, up)
    if record.state == State.EXITED and record.status:
        ended = figures.ago(figures.moment_of(record.finished), now)
        verdict = "" if record.status.verdict in {"exited", "signaled"} else f", {record.status.verdict}"
        return f"Exited ({record.status.exit_code}{verdict}) {ended}"
    return str(record.state).capitalize()


def _is_ancestor(record: Record, value: str) -> bool:
    if value in {record.image, record.image_id} or _is_short(record.image_id, value):
        return True
    try:
        asked, wanted = (Reference.parse(text).with_default_tag() for text in (record.image, value))
    except UsageError:
        return False
    return asked == wanted


def _has_label(record: Record, value: str) -> bool:
    key, equals, wanted = value.partition("=")
    return key in record.labels and (not equals or record.labels[key] == wanted)


def _is_short(identifier: str, value: str) -> bool:
    return len(value) >= 4 and identifier.removeprefix("sha256:").startswith(value.removeprefix("sha256:"))
