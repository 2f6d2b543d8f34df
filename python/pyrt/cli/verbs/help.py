"""``pyrt help``: the overview, or the help of one verb."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.cli.styles import paint
from pyrt.cli.verbs import SECTIONS, VERBS, find, parser_of

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help("help [VERB]", "Prints an overview, or what a verb takes.", (("pyrt help run", ""),))

_FOOTER = "pyrt VERB --help shows what a verb takes, with examples.\n"


def arguments(parser: Parser) -> None:
    parser.add_argument("verb", nargs="*", metavar="VERB", help="the verb in question")


async def main(invocation: Invocation) -> int:
    console, words = invocation.console, invocation.options.verb
    group = words[0] if len(words) == 1 and words[0] not in VERBS else None
    if words and not _members(group):
        name, _ = find(words)
        await console.out(parser_of(name).text(console.columns))
    else:
        await console.out(_overview(group, colour=console.has_colour()))
    return 0


def _members(group: str | None) -> list[str]:
    return [name for name in VERBS if group and name.startswith(f"{group} ")]


def _overview(group: str | None, *, colour: bool) -> str:
    members = _members(group)
    lines = [f"Usage: pyrt {group or ''}{' ' if group else ''}VERB ...", ""]
    for title, verbs in SECTIONS.items():
        shown = {name: verb.summary for name, verb in verbs.items() if (name in members if group else not verb.hidden)}
        if shown:
            lines.append(paint(title, "bold", colour=colour))
            lines += [f"  {name:<15} {summary}" for name, summary in shown.items()]
            lines.append("")
    return "\n".join([*lines, _FOOTER])
