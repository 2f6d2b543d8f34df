"""What the steps of one start took: the engine's own, then the keeper's and the child's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, final

from pyrt.engine.results import Mark, Timing

if TYPE_CHECKING:
    from pyrt import _native


@final
class Stopwatch:
    """Runs from the moment it is made. All parties read CLOCK_MONOTONIC, so their times compare."""

    def __init__(self) -> None:
        self._begun = time.monotonic_ns()
        self._marks: list[Mark] = []

    def mark(self, name: str) -> None:
        """A step of the engine is done."""
        self._marks.append(Mark("engine", name, time.monotonic_ns() - self._begun))

    def timing(self, steps: tuple[tuple[str, str], ...], report: _native.Started) -> Timing:
        """``steps`` are part and name of the plan's steps."""
        begun = self._begun
        taken = Mark("keeper", "take the plan", report.begun - begun)
        return Timing((*self._marks, taken), steps, tuple([at and at - begun for at in report.timings]))


def steps_of(plan: _native.Plan) -> tuple[tuple[str, str], ...]:
    """Part and name of each step of a plan."""
    return tuple([(step.part, step.name) for step in plan.steps()])
