"""``pyrt save``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyrt.cli.parser import Help, Parser
from pyrt.cli.streams import to_stdout

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation
    from pyrt.images.archive import Form

HELP = Help(
    "save [OPTIONS] IMAGE ...",
    "Writes images to an archive that other tools read.",
    (
        ("pyrt save debian:12 | docker load", ""),
        ("pyrt save -o base.tar base:1", ""),
        ("pyrt save --format oci -o layout/ base:1", "a folder, as the name ends in /"),
    ),
)

_FORMS: Final[dict[str, Form]] = {
    "docker": "docker-archive",
    "docker-archive": "docker-archive",
    "oci": "oci-archive",
    "oci-archive": "oci-archive",
    "oci-dir": "oci-dir",
}


def arguments(parser: Parser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="names or ids")
    parser.add_argument("-o", "--output", metavar="PATH", help="a file, or a folder/, instead of stdout")
    parser.add_argument("--format", choices=_FORMS, default="docker-archive", metavar="FORM", help=", ".join(_FORMS))


async def main(invocation: Invocation) -> int:
    options, console, engine = invocation.options, invocation.console, invocation.engine
    form = _FORMS[options.format]
    images = [engine.local_name(name, console.environment) for name in options.images]
    if options.output is not None and options.output != "-":
        path = console.path(options.output)
        if form == "oci-archive" and (options.output.endswith("/") or path.is_dir()):
            form = "oci-dir"
        await engine.save(images, path, form=form)
        return 0
    await to_stdout(console, lambda target: engine.save(images, target, form=form))
    return 0
