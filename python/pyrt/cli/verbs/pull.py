"""``pyrt pull``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli import pulling
from pyrt.cli.parser import Help, Parser
from pyrt.errors import ImageNotFound
from pyrt.images.reference import Reference

if TYPE_CHECKING:
    from pyrt.cli.console import Console
    from pyrt.cli.verbs import Invocation
    from pyrt.engine.engine import Engine

HELP = Help(
    "pull [OPTIONS] NAME[:TAG|@DIGEST]",
    "Gets an image from a registry: all of it, or nothing. Parts that have come are kept for the next attempt.",
    (
        ("pyrt pull debian:12", ""),
        ("pyrt pull --platform linux/arm64 debian:12", "for another machine"),
        ("id=$(pyrt pull -q localhost:5000/base)", "prints its name alone"),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME[:TAG|@DIGEST]", help="such as debian:12 or localhost:5000/base")
    parser.add_argument("--platform", metavar="OS/ARCH", help="for which machine, if not for this one")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


async def main(invocation: Invocation) -> int:
    options, console, engine = invocation.options, invocation.console, invocation.engine
    before = _present(engine, options.name, console)
    image = await pulling.pull(console, engine, options.name, platform=options.platform, quiet=options.quiet)
    # What a short name turned out to mean, if it is one.
    reference = Reference.parse(engine.local_name(options.name, console.environment)).with_default_tag()
    name = str(reference)
    if options.quiet:
        await console.out(f"{name}\n")
        return 0
    what = "Image is up to date for" if before == image.id else "Downloaded newer image for"
    digest = image.repo_digests[0].rpartition("@")[2] if image.repo_digests else image.digest
    await console.out(f"Digest: {digest}\nStatus: {what} {reference.familiar()}\n{name}\n")
    return 0


def _present(engine: Engine, name: str, console: Console) -> str | None:
    try:
        return engine.find_image(name, environ=console.environment).id
    except ImageNotFound:
        return None
