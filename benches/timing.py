"""How the benches measure: cases interleaved in one run, medians, p99, and ratios to one of them.

Machines are noisy and drift. A B C A B C ... lets every case see the same drift, so that ratios hold where
absolute times do not.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio


@dataclass
class Case:
    """One thing to measure. ``sample()`` runs it once and gives milliseconds by figure name."""

    name: str
    sample: Callable[[], Awaitable[dict[str, float]]]
    note: str = ""
    figures: dict[str, list[float]] = field(default_factory=dict)
    failure: str = ""


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def interleave(cases: Sequence[Case], samples: int, gap: float = 0.0, warmup: int = 3) -> None:
    """Takes ``samples`` of each case in turn, ``gap`` seconds of quiet before each; a case that fails drops out."""
    for turn in range(warmup + samples):
        for case in cases:
            if case.failure:
                continue
            await trio.sleep(gap)
            try:
                figures = await case.sample()
            except Exception as error:  # A peer that can't run here is a row that says so, not the end of the bench.
                case.failure = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                continue
            if turn >= warmup:
                for name, value in figures.items():
                    case.figures.setdefault(name, []).append(value)


def table(title: str, cases: Sequence[Case], base: str) -> str:
    """A text table: each figure's median and p99 in milliseconds, and its median as a multiple of ``base``'s."""
    by_name = {case.name: case for case in cases}
    lines = [title, f"{'case':34} {'figure':22} {'p50 ms':>9} {'p99 ms':>9} {'x ' + base:>12}"]
    for case in cases:
        if case.failure:
            lines.append(f"{case.name:34} not measured: {case.failure}")
        for name, values in case.figures.items():
            reference = by_name[base].figures.get(name) if base in by_name else None
            median = statistics.median(values)
            ratio = f"{median / statistics.median(reference):.2f}" if reference else "-"
            lines.append(
                f"{case.name:34} {name:22} {median:9.2f} {percentile(values, 0.99):9.2f} {ratio:>12}  {case.note}"
            )
    return "\n".join(lines)


def machine() -> dict[str, object]:
    """What the figures were taken on."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg(),
    }


def write(path: Path, results: Mapping[str, Sequence[Case]]) -> None:
    """All samples as JSON, with the machine."""
    document = {
        "machine": machine(),
        "runs": {
            title: [
                {"case": case.name, "note": case.note, "failure": case.failure, "ms": case.figures} for case in cases
            ]
            for title, cases in results.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
