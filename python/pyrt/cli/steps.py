"""The steps of a start, as tables: what each took (``inspect --timing``) and what each does (``explain``)."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, Final

from pyrt.cli import figures
from pyrt.cli.styles import paint, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrt._native import Step
    from pyrt.engine.results import Mark

_WIDEST_BAR: Final = 40
_BLOCKS: Final = " ▏▎▍▌▋▊▉█"
_COLOURS: Final = {"engine": "cyan", "keeper": "yellow", "child": "green"}


def timing_table(marks: Sequence[Mark], columns: int, *, colour: bool) -> str:
    """A line for each step: who, what, how long, and a bar of that length; the whole below."""
    if not marks:
        return "no start of this container was timed\n"
    rows = _rows(marks)
    widest = max(len(name) for _, name, _ in rows)
    room = max(8, min(_WIDEST_BAR, columns - widest - 20))
    longest = max(*(took for _, _, took in rows), 1)
    lines = [
        f"{part:<7} {name:<{widest}} {figures.took(took):>7}  "
        + paint(_bar(took / longest, room), _COLOURS.get(part, ""), colour=colour and part in _COLOURS)
        for part, name, took in rows
    ]
    total = f"{'':7} {'in all':<{widest}} {figures.took(marks[-1].at):>7}"
    return "\n".join([*(line.rstrip() for line in lines), total, ""])


def _rows(marks: Sequence[Mark]) -> list[tuple[str, str, int]]:
    """Part, name and nanoseconds of each step; of the same step several times in a row one, with their number."""
    rows = []
    before = 0
    for (part, name), group in groupby(marks, key=lambda mark: (mark.part, mark.name)):
        same = list(group)
        rows.append((part, f"{name} x{len(same)}" if len(same) > 1 else name, same[-1].at - before))
        before = same[-1].at
    return rows


def _bar(share: float, room: int) -> str:
    eighths = round(share * room * 8)
    return _BLOCKS[8] * (eighths // 8) + _BLOCKS[eighths % 8].strip()


def step_table(steps: Sequence[Step], *, colour: bool) -> str:
    """A line for each step, numbered through as errors number them."""
    lines = []
    part = ""
    for step in steps:
        if step.part != part:
            part = step.part
            lines.append(paint(_HEADINGS.get(part, part), "bold", colour=colour))
        lines.append(f"{step.index + 1:>4}  {visible(_ID.sub(lambda match: figures.short(match[0]), step.text))}")
    return "\n".join([*lines, ""])


_ID: Final = re.compile(r"\b[0-9a-f]{64}\b")
_HEADINGS: Final = {
    "keeper": "The keeper, with the host's rights:",
    "child": "The child, inside the new namespaces:",
}
