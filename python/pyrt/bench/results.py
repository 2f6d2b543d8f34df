"""What was measured, as values: written as JSON with every sample, printed as a table, drawn by ``pictures``."""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING, Final

import msgspec

from pyrt.bench.machine import Machine, look

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pyrt.bench.cases import Case

_RESAMPLES: Final = 1000
_CONFIDENCE: Final = 0.95


class Ratio(msgspec.Struct, frozen=True):
    """A median as a multiple of another case's, with the bounds of its 95 % confidence interval."""

    to: str
    value: float
    low: float
    high: float


class Summary(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a person wants to know of many samples."""

    count: int
    median: float
    p99: float
    ratio: Ratio | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One case. ``samples`` by the name of the figure, in the run's unit; ``failure`` says why there are none.

    ``misses``: how many samples failed.
    """

    case: str
    version: str = ""
    missing: str = ""
    failure: str = ""
    misses: int = 0
    samples: dict[str, list[float]] = {}
    summary: dict[str, Summary] = {}


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Cases that were measured in turn. ``base`` is the case that the others are multiples of."""

    title: str
    unit: str
    base: str
    rows: list[Row]

    def row(self, case: str) -> Row | None:
        """The row of this name, if it was measured."""
        return next((row for row in self.rows if row.case == case and row.samples), None)

    def median(self, case: str, figure: str) -> float | None:
        """In the run's unit."""
        row = self.row(case)
        return row.summary[figure].median if row and figure in row.summary else None


class Published(msgspec.Struct, frozen=True):
    """A figure that was not measured here, and who says so. ``value`` in milliseconds."""

    case: str
    value: float
    source: str


class Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that one bench has found."""

    bench: str
    machine: Machine
    runs: list[Run]
    remarks: list[str] = []
    published: list[Published] = []
    format: int = 1

    def run(self, title: str) -> Run:
        """The run of this title."""
        return next(run for run in self.runs if run.title == title)


def document(bench: str, runs: list[Run], **more: list[Published] | list[str]) -> Document:
    """Of this machine."""
    return msgspec.structs.replace(Document(bench=bench, machine=look(), runs=runs), **more)


def write(found: Document, folder: Path) -> Path:
    """Writes BENCH.json, with all samples; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{found.bench}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    return path


def read(path: Path) -> Document:
    """A document that ``write`` wrote. Raises msgspec.ValidationError."""
    return msgspec.json.decode(path.read_bytes(), type=Document)


def summarized(title: str, unit: str, cases: Sequence[Case], base: str) -> Run:
    """A run of these cases."""
    reference = next((case.figures for case in cases if case.name == base), {})
    rows = [
        Row(
            case=case.name,
            version=case.version,
            missing=case.missing,
            failure=case.failure,
            misses=case.misses,
            samples=case.figures,
            summary={name: _summary(values, reference.get(name), base) for name, values in case.figures.items()},
        )
        for case in cases
    ]
    return Run(title=title, unit=unit, base=base, rows=rows)


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which ``share`` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _summary(values: list[float], reference: list[float] | None, base: str) -> Summary:
    ratio = _ratio(values, reference, base) if reference else None
    return Summary(len(values), statistics.median(values), percentile(values, 0.99), ratio)


def _ratio(values: list[float], reference: list[float], base: str) -> Ratio:
    """By bootstrap over rounds: what was measured in one round stays together, and so does the weather."""
    choose = random.Random(len(values))
    rounds = range(min(len(values), len(reference)))
    ratios = []
    for _ in range(_RESAMPLES):
        chosen = choose.choices(rounds, k=len(rounds))
        denominator = statistics.median(reference[index] for index in chosen)
        ratios.append(statistics.median(values[index] for index in chosen) / denominator if denominator else 0.0)
    tail = (1 - _CONFIDENCE) / 2
    middle = statistics.median(values) / (statistics.median(reference) or 1.0)
    return Ratio(base, middle, percentile(ratios, tail), percentile(ratios, 1 - tail))


def table(run: Run) -> str:
    """For a terminal: a line for each figure of each case."""
    width = max(len(row.case) for row in run.rows)
    lines = [f"{run.title}, {run.unit}", f"{'':{width}}  {'':10} {'median':>9} {'p99':>9}   x {run.base}"]
    for row in run.rows:
        if row.failure:
            lines.append(f"{row.case:{width}}  not measured: {row.failure}")
        for number, (name, of) in enumerate(row.summary.items()):
            ratio = f"{of.ratio.value:6.2f} ({of.ratio.low:.2f} to {of.ratio.high:.2f})" if of.ratio else ""
            rest = f"  without {row.missing}" if row.missing and not number else ""
            lines.append(f"{row.case:{width}}  {name:10} {of.median:9.2f} {of.p99:9.2f}   {ratio:24}{rest}".rstrip())
    return "\n".join(lines)
