"""``pyrt top``: what ps(1) would say of a container's processes, without running it."""

from __future__ import annotations

import os
import time
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from pyrt.cli.listing import Column, render
from pyrt.cli.parser import Help, Parser, did_you_mean
from pyrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrt.cli.verbs import Invocation
    from pyrt.engine.processes import ContainerProcess

HELP = Help(
    "top [OPTIONS] CONTAINER [ps OPTIONS]",
    "Lists the processes of a container. Process ids are this machine's, user ids those that the container sees.",
    (
        ("pyrt top web", "as ps -ef"),
        ("pyrt top web aux", ""),
        ("pyrt top web -eo pid,rss,args", ""),
        ("pyrt top --json web", "a line of JSON each"),
    ),
)

_NANO: Final = 1_000_000_000
_DAY: Final = 86_400
_MEMORY: Final = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class _Field(NamedTuple):
    title: str
    show: Callable[[ContainerProcess], str]


def _command(process: ContainerProcess) -> str:
    return " ".join(process.command) if process.command else f"[{process.name}]"


def _clock(process: ContainerProcess) -> str:
    seconds = int(process.cpu_time)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _started(process: ContainerProcess) -> str:
    moment = datetime.fromtimestamp(process.started / _NANO)
    return f"{moment:%H:%M}" if time.time() - process.started / _NANO < _DAY else f"{moment:%b%d}"


def _age(process: ContainerProcess) -> float:
    return max(0.001, time.time() - process.started / _NANO)


def _elapsed(process: ContainerProcess) -> str:
    seconds = int(_age(process))
    days, hours = seconds // _DAY, seconds // 3600 % 24
    text = f"{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{days}-{hours:02}:{text}" if days else f"{hours:02}:{text}" if hours else text


_FIELDS: Final[dict[str, _Field]] = {
    "uid": _Field("UID", lambda process: str(process.inner_user)),
    "user": _Field("USER", lambda process: str(process.inner_user)),
    "pid": _Field("PID", lambda process: str(process.pid)),
    "ppid": _Field("PPID", lambda process: str(process.parent)),
    "nspid": _Field("NSPID", lambda process: str(process.inner_pid)),
    "c": _Field("C", lambda process: str(int(100 * process.cpu_time / _age(process)))),
    "pcpu": _Field("%CPU", lambda process: f"{100 * process.cpu_time / _age(process):.1f}"),
    "pmem": _Field("%MEM", lambda process: f"{100 * process.memory / _MEMORY:.1f}"),
    "stime": _Field("STIME", _started),
    "start": _Field("START", _started),
    "etime": _Field("ELAPSED", _elapsed),
    "time": _Field("TIME", _clock),
    "tty": _Field("TTY", lambda process: process.terminal or "?"),
    "stat": _Field("STAT", lambda process: process.state),
    "state": _Field("S", lambda process: process.state),
    "rss": _Field("RSS", lambda process: str(process.memory // 1024)),
    "vsz": _Field("VSZ", lambda process: str(process.virtual // 1024)),
    "nlwp": _Field("NLWP", lambda process: str(process.threads)),
    "comm": _Field("COMMAND", lambda process: process.name),
    "args": _Field("COMMAND", _command),
    "cmd": _Field("CMD", _command),
    "command": _Field("COMMAND", _command),
}
_FULL: Final = ("uid", "pid", "ppid", "c", "stime", "tty", "time", "cmd")
_AUX: Final = ("user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat", "start", "time", "command")


def arguments(parser: Parser) -> None:
    parser.add_argument("container", metavar="CONTAINER", help="its name or id")
    parser.add_command("options of ps: -ef (usual), aux, -eo LIST")
    parser.add_argument("--format", metavar="TEMPLATE", help="json, or a Go template of .PID, .PPID, .CMD and so on")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="a line of JSON each")


async def main(invocation: Invocation) -> int:
    options = invocation.options
    fields = _columns(options.command)
    processes = await invocation.engine.top(options.container)
    rows = [{field.title: field.show(process) for field in fields} for process in processes]
    columns = [Column(field.title, field.title) for field in fields]
    await invocation.console.out(render(rows, columns, options.format, {}))
    return 0


def _columns(words: Sequence[str]) -> list[_Field]:
    """What the options of ps ask for."""
    if not words or words[0] in {"-ef", "-e", "-f", "-Af", "-A"}:
        return [_FIELDS[name] for name in _FULL]
    if words[0] in {"aux", "-aux", "ax", "u"}:
        return [_FIELDS[name] for name in _AUX]
    if words[0] in {"-o", "-eo", "o", "-Ao"} and len(words) == 2:
        return [_asked(name) for name in words[1].split(",")]
    raise UsageError(
        f"the options {' '.join(words)} of ps are not known", hint="there are -ef, aux, and -eo with a list of fields"
    )


def _asked(text: str) -> _Field:
    """NAME, or NAME=TITLE."""
    name, equals, title = text.partition("=")
    found = _FIELDS.get({"%cpu": "pcpu", "%mem": "pmem", "tname": "tty", "rsz": "rss", "vsize": "vsz"}.get(name, name))
    if found is None:
        raise UsageError(f"ps knows no field {name} here", hint=did_you_mean(name, _FIELDS) or ", ".join(_FIELDS))
    return found._replace(title=title) if equals else found
