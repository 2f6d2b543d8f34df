"""``pyrt cp``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.cli.streams import to_stdout
from pyrt.errors import UsageError

if TYPE_CHECKING:
    from pyrt.cli.console import Console
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "cp [OPTIONS] CONTAINER:PATH PATH|-\n       pyrt cp [OPTIONS] PATH|- CONTAINER:PATH",
    "Copies files and folders out of a container or into it, whether it runs or not. - is a tar on stdout or stdin.",
    (
        ("pyrt cp web:/etc/nginx .", "the folder nginx, to here"),
        ("pyrt cp web:/etc/nginx/. conf", "what is in it, to conf"),
        ("pyrt cp ./site web:/srv", ""),
        ("pyrt cp web:/var/log - | tar t", ""),
        ("tar c . | pyrt cp - web:/srv", ""),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="what to copy")
    parser.add_argument("target", metavar="TARGET", help="where to")
    parser.add_argument("-a", "--archive", action="store_true", help="keep owners, and all rights")
    parser.add_argument("-L", "--follow-link", action="store_true", help="of a link, copy what it leads to")
    parser.add_argument("-q", "--quiet", action="store_true", help="as without: nothing is told of progress")


async def main(invocation: Invocation) -> int:
    options, console, engine = invocation.options, invocation.console, invocation.engine
    source, target = _split(options.source), _split(options.target)
    ways = {"follow_link": options.follow_link, "archive": options.archive}
    match source, target:
        case (str(container), path), (None, "-"):
            await to_stdout(console, lambda output: engine.copy_out(container, path, output, **ways))
        case (str(container), path), (None, there):
            await engine.copy_out(container, path, _path(console, there), **ways)
        case (None, "-"), (str(container), path):
            stdin = await console.input_file()
            try:
                await engine.copy_in(container, stdin, path, **ways)
            finally:
                os.close(stdin)
        case (None, here), (str(container), path):
            await engine.copy_in(container, _path(console, here), path, **ways)
        case (None, _), _:
            raise UsageError("neither is in a container", hint="write one as CONTAINER:PATH")
        case _:
            raise UsageError(
                "both are in containers", hint="pyrt cp web:/srv - | pyrt cp - other:/ copies from one to another"
            )
    return 0


def _split(text: str) -> tuple[str | None, str]:
    """Container and path; no container for a path of this machine, which begins with "/" or "." if it has a colon."""
    container, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")) or "/" in container:
        return None, text
    if not container or not path:
        raise UsageError(f"{text} names no file in a container", hint="write it as CONTAINER:PATH")
    return container, path


def _path(console: Console, text: str) -> str:
    """Absolute, with the end that says what is meant."""
    end = "/." if text == "." or text.endswith("/.") else "/" if text.endswith("/") else ""
    return f"{console.path(text)}".rstrip("/") + end or "/"
