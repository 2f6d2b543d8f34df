"""From the marks of one start to the bars of its waterfall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

_SMALL: Final = 0.012
"""Of the whole: steps that are shorter are drawn together with their neighbours."""


class Mark(msgspec.Struct, frozen=True):
    """As `pyrt inspect --timing --json` has it: ``at`` is in nanoseconds since the start was asked for."""

    part: str
    step: str
    at: int


class Span(NamedTuple):
    """One bar: who, what, from when to when in microseconds."""

    part: str
    name: str
    begun: float
    done: float


def spans_of(marks: Sequence[Mark]) -> list[Span]:
    """A bar for each step, or for several small ones in a row, in the order in which they began.

    Keeper and child work side by side: a step begins where the last one of the same part ended, the keeper's first
    when the engine has done its own, the child's first with the clone.
    """
    least = max(mark.at for mark in marks) / 1000 * _SMALL
    found: list[Span] = []
    for part in dict.fromkeys(mark.part for mark in marks):
        found += _together(_steps(marks, part), least)
    return sorted(found, key=lambda span: (span.begun, span.done))


def _steps(marks: Sequence[Mark], part: str) -> list[Span]:
    begun = _first(marks, part)
    steps = []
    for mark in marks:
        if mark.part == part:
            steps.append(Span(part, mark.step, begun / 1000, mark.at / 1000))
            begun = mark.at
    return steps


def _first(marks: Sequence[Mark], part: str) -> int:
    """When the first step of a part began."""
    if part == "keeper":
        return max((mark.at for mark in marks if mark.part == "engine"), default=0)
    if part == "child":
        return next((mark.at for mark in marks if mark.part == "keeper" and mark.step == "Clone"), 0)
    return 0


def _together(steps: Sequence[Span], least: float) -> list[Span]:
    found: list[Span] = []
    counts: list[int] = []
    for step in steps:
        if found and step.done - step.begun < least and found[-1].done - found[-1].begun < 2 * least:
            found[-1] = Span(step.part, found[-1].name, found[-1].begun, step.done)
            counts[-1] += 1
        else:
            found.append(step)
            counts.append(0)
    return [
        span._replace(name=f"{span.name} and {more} more" if more else span.name)
        for span, more in zip(found, counts, strict=True)
    ]
