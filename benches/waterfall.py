"""Where the time of one start goes, step by step: medians of many starts, as a waterfall in text and as a picture."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pyrt
from pyrt.bench import pictures, results
from pyrt.bench.cases import Case
from pyrt.bench.ground import CLOCK, IMAGE, prepared
from pyrt.bench.spans import Span

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benches.scale import Scale

    from pyrt.bench.results import Document
    from pyrt.engine.results import Mark

NAME: Final = "waterfall"
WIDTH: Final = 46
_WARMUP: Final = 5

# Steps in their order on cgroup version 1 (on version 2 the clone comes before /dev), a row for what belongs together:
# who does it, the last step of the row, what the row is called.
ROWS: Final = (
    ("engine", "make the specification", "image and options -> OCI specification"),
    ("engine", "make its pipes", "pipes"),
    ("engine", "compile the plan", "specification -> plan, layers opened"),
    ("keeper", "take the plan", "to the keeper"),
    ("keeper", "OpenAt", "cgroups and their limits"),
    ("keeper", "CloneTree", "/dev, view of cgroups, prepared files"),
    ("keeper", "Clone", "clone: six namespaces"),
    ("keeper", "NewOverlay", "id maps, overlay of mapped layers"),
    ("keeper", "Release", "limits of the child, all handed over"),
    ("child", "SetPropagation", "cgroups joined, loopback"),
    ("child", "MakeReadonly", "proc, sysfs, mounts, masked paths"),
    ("child", "AwaitKeeper", "waiting for the root file system"),
    ("child", "PivotRoot", "pivot_root"),
    ("child", "SetStdio", "what is mounted in the root"),
    ("child", "NoNewPrivileges", "user, groups, capabilities"),
    ("child", "LoadSeccomp", "seccomp, compiled before"),
    ("child", "Exec", "execve"),
)


async def measure(scale: Scale) -> Document:
    cases = {label: Case(label, None, version=part) for part, _, label in ROWS}
    with prepared() as ground:
        os.environ.update(PYRT_ROOT=str(ground.root), PYRT_RUN=str(ground.run))
        async with pyrt.open_engine(warm=0) as engine:
            await engine.load(ground.archive, name=IMAGE)
            for turn in range(_WARMUP + scale.samples):
                done = await engine.run(IMAGE, [CLOCK])
                if turn >= _WARMUP:
                    _keep(cases, spans(done.timing.marks))
                # Until a place is ready for the next.
                await engine.settled()
    return results.document(NAME, [results.summarized("one start", "us", [*cases.values()], "")])


def _keep(cases: dict[str, Case], found: Sequence[Span]) -> None:
    for span in found:
        figures = cases[span.name].figures
        for name, value in (("begun", span.begun), ("done", span.done), ("took", span.done - span.begun)):
            figures.setdefault(name, []).append(value)


def spans(marks: Sequence[Mark]) -> list[Span]:
    """One a row: from the end of what the same part did before to its own end."""
    found: list[Span] = []
    times = [(mark.part, mark.name, mark.at / 1000) for mark in marks]
    clone = max(at for part, name, at in times if (part, name) == ("keeper", "Clone"))
    begun = {"engine": 0.0, "keeper": max(at for part, _, at in times if part == "engine"), "child": clone}
    ends = []
    for part, last, label in ROWS:
        # Limits are written before the clone; what is opened after it belongs to another row.
        until = clone - 1e-3 if last == "OpenAt" else float("inf")
        done = max(at for owner, name, at in times if (owner, name) == (part, last) and at < until)
        ends.append((done, part, label))
    for done, part, label in sorted(ends):
        found.append(Span(part, label, begun[part], done))
        begun[part] = done
    return found


def draw(found: Document, folder: Path) -> list[Path]:
    """In text as well, for the README."""
    rows = [
        Span(row.version, row.case.strip(), row.summary["begun"].median, row.summary["done"].median)
        for row in found.runs[0].rows
    ]
    print("\n".join(in_text(rows)))
    paths = [folder / f"{NAME}.{kind}" for kind in ("svg", "png")]
    whole = rows[-1].done / 1000
    title = f"One start: {whole:.1f} ms from the call in Python to the container's own program"
    pictures.waterfall(rows, paths, title, found.machine.line())
    return paths


def in_text(rows: Sequence[Span]) -> list[str]:
    whole = rows[-1].done
    lines = []
    for span in rows:
        start = round(span.begun / whole * WIDTH)
        length = max(1, round((span.done - span.begun) / whole * WIDTH))
        bar = " " * min(start, WIDTH - 1) + "█" * length
        lines.append(f"{span.part:6}  {span.name:39} {span.done - span.begun:5.0f} us  {bar}".rstrip())
    lines.append(f"{'':47} {whole:5.0f} us  to the first instruction of the container's process")
    return lines
