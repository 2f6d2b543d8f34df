"""`make bench`: everything that is measured, or what is named: `python -m benches startup slopes --samples 50`.

Samples go to build/bench/NAME.json, pictures beside them. `--quick` looks whether it all works, and measures nothing.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio
from benches import daemons
from benches.scale import Scale

from pyrt.bench import results
from pyrt.bench.startup import hide_cgroup2, this_program

if TYPE_CHECKING:
    from pyrt.bench.results import Document

BENCHES: Final = (
    "startup",
    "joining",
    "detaching",
    "runtime",
    "waterfall",
    "throughput",
    "memory",
    "slopes",
    "extraction",
    "events",
    "imports",
)
QUICK: Final = Scale(samples=3, gap_samples=3, slow_samples=3, quiet=0.01, whole=False)
OUT: Final = Path(__file__).parent.parent / "build/bench"


def main() -> None:
    usual = Scale()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benches", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHES)}")
    parser.add_argument("--samples", type=int, default=usual.samples, help="of a case, back to back")
    parser.add_argument("--gap-samples", type=int, default=usual.gap_samples, help="with 100 ms of quiet before each")
    parser.add_argument("--slow-samples", type=int, default=usual.slow_samples, help="of what takes seconds each")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    hide_cgroup2(this_program())
    scale = Scale(samples=options.samples, gap_samples=options.gap_samples, slow_samples=options.slow_samples)
    chosen = options.benches or BENCHES
    with daemons.started() if daemons.USERS & {*chosen} else nullcontext():
        for name in chosen:
            run(name, QUICK if options.quick else scale, options.out)


def run(name: str, scale: Scale, folder: Path) -> Document:
    """One bench: measured, written, printed, drawn."""
    bench: Any = import_module(f"benches.{name}")
    found: Document = trio.run(bench.measure, scale)
    print(f"== {name}: {results.write(found, folder)}")
    for each in found.runs:
        print(results.table(each), end="\n\n")
    print(*(f"{remark}\n" for remark in found.remarks), sep="", end="")
    if hasattr(bench, "draw"):
        print(*(f"picture: {path}\n" for path in bench.draw(found, folder)), sep="", end="")
    return found


if __name__ == "__main__":
    main()
