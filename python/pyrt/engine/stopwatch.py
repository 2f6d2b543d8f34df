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

    def timing(self, plan: _native.Plan, report: _native.Started) -> Timing:
        """All steps in the order in which they were done; those that were not run are left out."""
        marks = [*self._marks, Mark("keeper", "take the plan", report.begun - self._begun)]
        marks += [
            Mark(step.part, step.name, at - self._begun)
            for step, at in zip(plan.steps(), report.timings, strict=False)
            if at
        ]
        marks.sort(key=lambda mark: mark.at)
        return Timing(tuple(marks))
