"""The README's picture of one start: medians of many, drawn as a waterfall of text.

python -m benches.waterfall [IMAGE]
"""

from __future__ import annotations

import argparse
import statistics
from typing import NamedTuple

import trio

import pyrt

STARTS = 100
WIDTH = 46

# Steps in their order, a row for what belongs together: who does it, the last step of the row, what the row is called.
ROWS = (
    ("engine", "make the specification", "image and options -> OCI specification"),
    ("engine", "record it", "journal"),
    ("engine", "make its folder and pipes", "folder and pipes"),
    ("engine", "compile the plan", "specification -> plan, layers opened"),
    ("keeper", "take the plan", "to the keeper"),
    ("keeper", "OpenAt", "cgroups and their limits"),
    ("keeper", "Clone", "clone: six namespaces"),
    ("keeper", "NewOverlay", "id maps, overlay of mapped layers"),
    ("keeper", "Release", "/dev and prepared files"),
    ("child", "AwaitKeeper", "  cgroups joined, loopback, proc, sysfs"),
    ("child", "PivotRoot", "  ids, pivot_root"),
    ("child", "MakeReadonly", "  mounts, masked and read-only paths"),
    ("child", "NoNewPrivileges", "  user, groups, capabilities"),
    ("child", "LoadSeccomp", "  seccomp, compiled before"),
    ("child", "Exec", "  execve"),
)


class Span(NamedTuple):
    """From when to when, microseconds since the start was asked for."""

    begun: float
    done: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("image", nargs="?", default="host")
    trio.run(measure, arguments.parse_args().image)


async def measure(image: str) -> None:
    starts = []
    async with pyrt.open_engine() as engine:
        for _ in range(STARTS):
            done = await engine.run(image, ["true"])
            assert done.timing is not None
            starts.append(spans([(mark.part, mark.name, mark.at / 1000) for mark in done.timing.marks]))
    print("\n".join(draw([Span(*map(statistics.median, zip(*row, strict=True))) for row in zip(*starts, strict=True)])))


def spans(marks: list[tuple[str, str, float]]) -> list[Span]:
    """One a row: from the end of what the same part did before to its own end."""
    found: list[Span] = []
    ends = {part: [at for owner, _, at in marks if owner == part] for part in ("engine", "keeper", "child")}
    begun = {"engine": 0.0, "keeper": ends["engine"][-1]}
    for part, last, _ in ROWS:
        if part == "child" and "child" not in begun:
            begun["child"] = next(span.done for span, row in zip(found, ROWS, strict=False) if row[1] == "Clone")
        clone = max(at for owner, name, at in marks if owner == "keeper" and name == "Clone")
        # Limits are written before the clone; what is opened after it belongs to another row.
        until = clone - 1e-3 if last == "OpenAt" else float("inf")
        done = max(at for owner, name, at in marks if (owner, name) == (part, last) and at < until)
        found.append(Span(begun[part], done))
        begun[part] = done
    return found


def draw(rows: list[Span]) -> list[str]:
    whole = rows[-1].done
    lines = []
    for (part, _, label), span in zip(ROWS, rows, strict=True):
        start = round(span.begun / whole * WIDTH)
        length = max(1, round((span.done - span.begun) / whole * WIDTH))
        bar = " " * min(start, WIDTH - 1) + "█" * length
        lines.append(f"{part:6}  {label:39} {span.done - span.begun:5.0f} us  {bar}".rstrip())
    lines.append(f"{'':47} {whole:5.0f} us  to the first instruction of the container's process")
    return lines


if __name__ == "__main__":
    main()
