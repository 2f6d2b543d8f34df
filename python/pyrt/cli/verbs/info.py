"""``pyrt info``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pyrt.cli import VERSION, figures
from pyrt.cli.parser import Help, Parser
from pyrt.cli.template import compile_template
from pyrt.engine.states import LIVE

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation
    from pyrt.engine.engine import Engine

HELP = Help(
    "info [OPTIONS]",
    "This machine as pyrt sees it, and what is on it.",
    (("pyrt info --format '{{.StateFolder}}'", ""),),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("-f", "--format", metavar="TEMPLATE", help="json, or a Go template")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="as JSON")


async def main(invocation: Invocation) -> int:
    facts = await _facts(invocation.engine)
    form = invocation.options.format
    if form == "json":
        text = compile_template("{{json .}}")(facts) + "\n"
    elif form:
        text = compile_template(form)(facts) + "\n"
    else:
        text = "".join(_lines(facts, ""))
    await invocation.console.out(text)
    return 0


async def _facts(engine: Engine) -> dict[str, Any]:
    from pyrt import _native

    records = [record for record in engine.containers() if not record.is_gone]
    system = os.uname()
    return {
        "Version": VERSION,
        "StateFolder": str(engine.layout.root),
        "Containers": len(records),
        "ContainersRunning": sum(record.state in LIVE for record in records),
        "Images": len(await engine.images()),
        "Name": system.nodename,
        "KernelVersion": system.release,
        "Architecture": system.machine,
        "NCPU": os.cpu_count(),
        "MemTotal": figures.size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), binary=True),
        "Host": _native.host(),
    }


def _lines(value: dict[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for name, fact in value.items():
        if isinstance(fact, dict):
            lines += [f"{indent}{name}:\n", *_lines(fact, f"{indent}  ")]
        elif isinstance(fact, list | tuple):
            lines.append(f"{indent}{name}: {', '.join(map(str, fact))}\n")
        elif isinstance(fact, bool):
            lines.append(f"{indent}{name}: {'yes' if fact else 'no'}\n")
        else:
            lines.append(f"{indent}{name}: {fact}\n")
    return lines
