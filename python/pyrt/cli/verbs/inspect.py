"""``pyrt inspect``: containers, and images if no container is called so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pyrt.cli.dispatch import report
from pyrt.cli.documents import container_document, image_document, show
from pyrt.cli.measuring import run_bench
from pyrt.cli.parser import Help, Parser
from pyrt.cli.steps import timing_table
from pyrt.errors import ContainerNotFound, ImageError, ImageNotFound, PyrtError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrt.cli.console import Console
    from pyrt.cli.verbs import Invocation
    from pyrt.engine.engine import Engine
    from pyrt.engine.record import Record
    from pyrt.engine.results import Mark
    from pyrt.images.image import Image

HELP = Help(
    "inspect [OPTIONS] NAME ...",
    "Shows all that is known of containers or images, as JSON.",
    (
        ("pyrt inspect -f '{{.State.ExitCode}}' web", ""),
        ("pyrt inspect --timing web", "what each step of its start took"),
        ("pyrt inspect --timing --plot start.svg web", "the same as a picture"),
        ("pyrt inspect --type image debian:12", ""),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="containers or images")
    parser.add_argument(
        "-f", "--format", metavar="TEMPLATE", help="a Go template: '{{.State.Status}}', '{{json .Config}}'"
    )
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="a line of JSON each")
    parser.add_argument("-s", "--size", action="store_true", help="also what a container has written, in bytes")
    parser.add_argument("--type", choices=("container", "image"), metavar="TYPE", help="container or image alone")
    parser.add_argument(
        "--timing", action="store_true", help="what the steps of the last start took; with --json: in ns"
    )
    parser.add_argument("--plot", metavar="FILE", help="with --timing: a picture instead, .svg or .png")


async def main(invocation: Invocation) -> int:
    options, console, engine = invocation.options, invocation.console, invocation.engine
    if options.plot:
        return await _plot_timing(invocation)
    if options.timing:
        return await _show_timing(invocation)
    documents, failures = [], []
    for name in options.names:
        try:
            document = _document(engine, name, options.type, console)
            if options.size and "HostConfig" in document:
                document |= await _sizes(engine, document)
            documents.append(document)
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
        record = engine.inspect(name)
        return container_document(record, _image_of(engine, record), engine.layout.folder(record.id))
    except ContainerNotFound:
        if kind == "container":
            raise
    try:
        return image_document(engine.find_image(name, environ=console.environment))
    except (ImageNotFound, UsageError):
        raise ContainerNotFound(
            f"neither a container nor an image is called {name}", hint="pyrt ps -a and pyrt images list them"
        ) from None


async def _sizes(engine: Engine, document: dict[str, Any]) -> dict[str, int]:
    written = await engine.size(document["Id"])
    image = _image_of(engine, engine.inspect(document["Id"]))
    return {"SizeRw": written, "SizeRootFs": written + (image.size if image else 0)}


def _image_of(engine: Engine, record: Record) -> Image | None:
    try:
        return engine.recipes.image(engine.find_image, record.image_id)
    except ImageError:
        return None


async def _show_timing(invocation: Invocation) -> int:
    options, console, engine = invocation.options, invocation.console, invocation.engine
    for name in options.names:
        marks = engine.timing(name).marks
        if options.format == "json":
            await console.out(_as_json(marks).decode() + "\n")
        elif options.format:
            raise PyrtError("--timing takes no template", hint="--json gives what to read by program")
        else:
            await console.out(timing_table(marks, console.columns, colour=console.has_colour()))
    return 0


def _as_json(marks: Sequence[Mark]) -> bytes:
    return msgspec.json.encode([{"part": mark.part, "step": mark.name, "at": mark.at} for mark in marks])


async def _plot_timing(invocation: Invocation) -> int:
    options, console, engine = invocation.options, invocation.console, invocation.engine
    if not options.timing or len(options.names) != 1:
        raise UsageError("--plot draws the --timing of one container", hint="pyrt inspect --timing --plot FILE NAME")
    [name] = options.names
    file = console.path(options.plot)
    if file.suffix not in {".svg", ".png"}:
        raise UsageError(f"{options.plot} is neither .svg nor .png")
    marks = engine.timing(name).marks
    if not marks:
        raise UsageError(f"no start of {name} was timed")
    return await run_bench(console, ["waterfall", "--out", str(file), "--title", name], input=_as_json(marks))
