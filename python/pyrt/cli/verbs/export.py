"""``pyrt export``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.cli.streams import to_stdout
from pyrt.errors import UsageError

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "export [OPTIONS] CONTAINER",
    "Writes the files of a container as a tar, without what is mounted in it.",
    (("pyrt export -o web.tar web", ""), ("pyrt export web | tar t", "")),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("container", metavar="CONTAINER", help="its name or id")
    parser.add_argument("-o", "--output", metavar="FILE", help="a file instead of stdout")


async def main(invocation: Invocation) -> int:
    options, console, engine = invocation.options, invocation.console, invocation.engine
    if options.output is None or options.output == "-":
        await to_stdout(console, lambda target: engine.export(options.container, target))
        return 0
    path = console.path(options.output)
    engine.inspect(options.container)
    try:
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"writing {path}: {error.strerror}") from error
    try:
        await engine.export(options.container, target)
    finally:
        os.close(target)
    return 0
