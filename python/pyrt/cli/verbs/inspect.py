"""``pyrt inspect``: containers, and images if no container is called so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pyrt.cli.dispatch import report
from pyrt.cli.documents import container_document, image_document, show
from pyrt.cli.parser import Help, Parser
from pyrt.cli.steps import timing_table
from pyrt.errors import ContainerNotFound, ImageNotFound, PyrtError, UsageError

if TYPE_CHECKING:
    from pyrt.cli.console import Console
    from pyrt.cli.verbs import Invocation
    from pyrt.engine.engine import Engine

HELP = Help(
    "inspect [OPTIONS] NAME ...",
    "Shows all that is known of containers or images, as JSON.",
    (
        ("pyrt inspect -f '{{.State.ExitCode}}' web", ""),
        ("pyrt inspect --timing web", "what each step of its start took"),
        ("pyrt inspect --type image debian:12", ""),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="containers or images")
    parser.add_argument(
        "-f", "--format", metavar="TEMPLATE", help="a Go template: '{{.State.Status}}', '{{json .Config}}'"
    )
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="a line of JSON each")
    parser.add_argument("--type", choices=("container", "image"), metavar="TYPE", help="container or image alone")
    parser.add_argument(
        "--timing", action="store_true", help="what the steps of the last start took; with --json: in ns"
    )


async def main(invocation: Invocation) -> int:
    options, console, engine = invocation.options, invocation.console, invocation.engine
    if options.timing:
        return await _show_timing(invocation)
    documents, failures = [], []
    for name in options.names:
        try:
            documents.append(_document(engine, name, options.type, console))
        except (ContainerNotFound, ImageNotFound) as error:
            failures.append(error)
    await console.out(show(documents, options.format))
    for failure in failures:
        await report(console, failure)
    return failures[0].exit_code if failures else 0


def _document(engine: Engine, name: str, kind: str | None, console: Console) -> dict[str, Any]:
    if kind == "image":
        return image_document(engine.find_image(name, environ=console.environment))
    try:
        return container_document(engine.inspect(name))
    except ContainerNotFound:
        if kind == "container":
            raise
    try:
        return image_document(engine.find_image(name, environ=console.environment))
    except (ImageNotFound, UsageError):
        raise ContainerNotFound(
            f"neither a container nor an image is called {name}", hint="pyrt ps -a and pyrt images list them"
        ) from None


async def _show_timing(invocation: Invocation) -> int:
    options, console, engine = invocation.options, invocation.console, invocation.engine
    for name in options.names:
        marks = engine.timing(name).marks
        if options.format == "json":
            rows = [{"part": mark.part, "step": mark.name, "at": mark.at} for mark in marks]
            await console.out(msgspec.json.encode(rows).decode() + "\n")
        elif options.format:
            raise PyrtError("--timing takes no template", hint="--json gives what to read by program")
        else:
            await console.out(timing_table(marks, console.columns, colour=console.has_colour()))
    return 0
