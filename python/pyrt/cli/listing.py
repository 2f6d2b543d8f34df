"""Lists: the table that people read, and the lines that programs do, from the same rows."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pyrt.cli.styles import visible
from pyrt.cli.template import compile_template

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrt.cli.parser import Parser

_GAP: Final = 3
"""Spaces between columns."""


class Column(msgspec.Struct, frozen=True):
    """A field of a row, and how it is called above a table."""

    field: str
    title: str


def add_format_options(parser: Parser) -> None:
    """--format and --json."""
    parser.add_argument(
        "--format", metavar="TEMPLATE", help="table, json, or a Go template: '{{.ID}}', 'table {{.ID}}\\t{{.Size}}'"
    )
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="a line of JSON each")


def render(
    rows: Sequence[dict[str, Any]], columns: Sequence[Column], format: str | None, titles: dict[str, str]
) -> str:
    """The rows in the form that ``format`` says, "" for none. ``titles`` names fields that are no usual column."""
    if format == "json":
        return "".join(msgspec.json.encode(row).decode() + "\n" for row in rows)
    if format in {None, "", "table"}:
        return _aligned([[column.title, *(_cell(row[column.field]) for row in rows)] for column in columns])
    assert format is not None
    if format.startswith("table "):
        return _templated_table(rows, compile_template(format.removeprefix("table ")), columns, titles)
    line = compile_template(format)
    return "".join(line(row) + "\n" for row in rows)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _templated_table(
    rows: Sequence[dict[str, Any]], line: Callable[[Any], str], columns: Sequence[Column], titles: dict[str, str]
) -> str:
    """A table whose columns a template separates by tabs; the heads come of the template as well."""
    known = {column.field: column.title for column in columns} | titles
    fields = rows[0] if rows else known
    heads = {field: known.get(field, field.upper()) for field in fields}
    return _table([line(heads).split("\t"), *(line(row).split("\t") for row in rows)])


def _table(rows: Sequence[Sequence[str]]) -> str:
    return _aligned(list(zip_longest(*rows, fillvalue="")))


def _aligned(columns: Sequence[Sequence[str]]) -> str:
    """By columns, as most of the work is then done in one call for all rows."""
    lines = zip(*map(_padded, columns), strict=True)
    return "".join([f"{''.join(line).rstrip()}\n" for line in lines])


def _padded(column: Sequence[str]) -> list[str]:
    cells = [visible(cell) for cell in column]
    width = max(map(len, cells)) + _GAP
    return [cell.ljust(width) for cell in cells]
