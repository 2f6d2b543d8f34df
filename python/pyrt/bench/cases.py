"""How the benches measure: cases in turn, so that all of them see the same weather.

Machines are noisy and drift. In each round every case is measured once, in an order that changes from round to round:
a net namespace takes 30 ms to vanish after its container, and nobody is always to be the one who comes after it.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

Sample = Callable[[], Awaitable[dict[str, float]]]
"""Measures once: values by the name of what was measured."""


_WARMUP: Final = 3
_MOST_MISSES: Final = 3


async def nothing_left_over() -> None:
    """Of most cases nothing goes on when they are measured."""


@dataclass
class Case:
    """One thing to measure.

    ``missing``: what pyrt's container has and this one has not. ``settle`` waits, untimed, until nothing of the last
    sample goes on that would disturb the next case. ``failure``: why it can't be measured here.
    """

    name: str
    sample: Sample | None
    version: str = ""
    missing: str = ""
    settle: Callable[[], Awaitable[None]] = nothing_left_over
    failure: str = ""
    misses: int = 0
    """Samples that failed; three in a row are the end of it."""
    in_a_row: int = 0
    figures: dict[str, list[float]] = field(default_factory=dict)

    def missed(self, reason: str, *, keep: bool) -> None:
        """A sample that failed: some tools lose the output of one container in a hundred."""
        self.misses += keep
        self.in_a_row += 1
        if self.in_a_row == _MOST_MISSES:
            self.failure = reason
            self.figures.clear()


def unavailable(name: str, reason: str, missing: str = "") -> Case:
    """A row that says why there are no figures."""
    return Case(name, None, missing=missing, failure=reason)


def afresh(cases: Sequence[Case]) -> list[Case]:
    """The same cases for another run, without the figures of the last."""
    for case in cases:
        case.figures = {}
    return [*cases]


async def interleave(cases: Sequence[Case], samples: int, *, gap: float = 0.0, warmup: int | None = None) -> None:
    """Takes ``samples`` of each case, ``gap`` seconds of quiet before each. One that fails drops out, with why.

    ``warmup``: rounds before them that are not kept; a few, if it is not said.
    """
    if warmup is None:
        warmup = max(1, min(_WARMUP, samples // 10))
    order = random.Random(samples)
    for turn in range(warmup + samples):
        waiting = [case for case in cases if not case.failure]
        for case in order.sample(waiting, len(waiting)):
            await trio.sleep(gap)
            await _measure(case, keep=turn >= warmup)


async def _measure(case: Case, *, keep: bool) -> None:
    assert case.sample is not None
    try:
        figures = await case.sample()
        await case.settle()
    except Exception as error:  # A tool that can't run here is a row that says so, not the end of the bench.
        case.missed(" ".join(str(error).split())[:300] or type(error).__name__, keep=keep)
        return
    case.in_a_row = 0
    if keep:
        for name, value in figures.items():
            case.figures.setdefault(name, []).append(value)
