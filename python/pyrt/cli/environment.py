"""Environment variables and labels, as they come by -e, --env-file, -l and --label-file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pyrt.errors import UsageError
from pyrt.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from pyrt.cli.console import Console
    from pyrt.cli.parser import Parser

_LONGEST_FILE: Final = 1 << 20


def add_environment_options(parser: Parser) -> None:
    """-e and --env-file."""
    parser.add_argument(
        "-e", "--env", action="append", default=[], metavar="NAME[=VALUE]", help="a variable; without a value: yours"
    )
    parser.add_argument("--env-file", action="append", default=[], metavar="FILE", help="variables, one a line")


async def environment_of(options: Any, console: Console) -> tuple[tuple[str, str], ...]:
    """The variables that the options set; of one that is set several times the last counts, -e after the files."""
    lines = [line for name in options.env_file for line in await read_lines(console.path(name))]
    return tuple(dict(_variables([*lines, *options.env], console.environment)).items())


def _variables(lines: Iterable[str], own: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, equals, value = line.partition("=")
        if not name or any(character.isspace() for character in name):
            raise UsageError(f"{line!r} sets no variable", hint="such as NAME=value")
        if equals:
            yield name, value
        elif name in own:
            yield name, own[name]


async def labels_of(options: Any, console: Console) -> dict[str, str]:
    """The labels that the options set, those of -l after those of the files."""
    lines = [line for name in options.label_file for line in await read_lines(console.path(name))]
    pairs = (line.partition("=") for line in [*lines, *options.label])
    labels = {name: value for name, _, value in pairs}
    if "" in labels:
        raise UsageError("a label without a name", hint="such as -l app=web")
    return labels


async def read_lines(path: Path) -> list[str]:
    """The lines of a small text file, without comments and empty ones, as Docker reads them."""
    try:
        text = await in_thread(_read, path, abandon_on_cancel=True)
    except OSError as error:
        raise UsageError(f"reading {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"reading {path}: it is not UTF-8 text") from None
    lines = (line.lstrip() for line in text.removeprefix("\ufeff").split("\n"))
    return [line.removesuffix("\r") for line in lines if line and not line.startswith("#")]


def _read(path: Path) -> str:
    """Of a pipe or a device as well, but no more than somebody would write by hand."""
    with path.open("rb") as file:
        data = file.read(_LONGEST_FILE + 1)
    if len(data) > _LONGEST_FILE:
        raise UsageError(f"{path} is longer than {_LONGEST_FILE >> 20} MiB")
    return data.decode()
