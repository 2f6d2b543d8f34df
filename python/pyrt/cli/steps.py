"""The steps of a start, as tables: what each took (``inspect --timing``) and what each does (``explain``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyrt.cli import figures
from pyrt.cli.styles import paint

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
    spans = [mark.at - before for mark, before in zip(marks, [0, *(mark.at for mark in marks)], strict=False)]
    widest = max(len(mark.name) for mark in marks)
    room = max(8, min(_WIDEST_BAR, columns - widest - 20))
    longest = max(*spans, 1)
    lines = [
        f"{mark.part:<7} {mark.name:<{widest}} {figures.took(span):>7}  "
        + paint(_bar(span / longest, room), _COLOURS.get(mark.part, ""), colour=colour and mark.part in _COLOURS)
        for mark, span in zip(marks, spans, strict=True)
    ]
    total = f"{'':7} {'in all':<{widest}} {figures.took(marks[-1].at):>7}"
    return "\n".join([*(line.rstrip() for line in lines), total, ""])


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
        lines.append(f"{step.index + 1:>4}  {step.text}")
    return "\n".join([*lines, ""])


_HEADINGS: Final = {
    "keeper": "The keeper, with the host's rights:",
    "child": "The child, inside the new namespaces:",
}
