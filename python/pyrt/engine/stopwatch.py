"""What the steps of one start took: the engine's own, then the keeper's and the child's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias, final

from pyrt.engine.results import Mark, Timing

if TYPE_CHECKING:
    from pyrt import _native


Steps: TypeAlias = tuple[tuple[str, str], ...]
"""Part and name of the steps of a plan."""


@final
class Stopwatch:
    """Runs from the moment it is made. All parties read CLOCK_MONOTONIC, so their times compare."""

    def __init__(self) -> None:
        self._begun = time.monotonic_ns()
        self._marks: list[Mark] = []

    def mark(self, name: str) -> None:
        """A step of the engine is done."""
        self._marks.append(Mark("engine", name, time.monotonic_ns() - self._begun))

    def timing(self, steps: Steps, report: _native.Started) -> Timing:
        """All marks, and what the keeper has reported of a plan of these steps."""
        begun = self._begun
        # A keeper that has made its container beforehand took the plan before there was a watch.
        taken = [Mark("keeper", "take the plan", report.begun - begun)] if report.begun > begun else []
        return Timing((*self._marks, *taken), steps, tuple([at and at - begun for at in report.timings]))


def steps_of(plan: _native.Plan) -> Steps:
    """The steps of a plan."""
    return tuple([(step.part, step.name) for step in plan.steps()])
