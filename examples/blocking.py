"""One call, for programs that do without Trio.

python examples/blocking.py [IMAGE]
"""

from __future__ import annotations

import sys
from itertools import pairwise

import pyrt


def main(image: str) -> None:
    done = pyrt.run(image, ["sh", "-c", "echo hello from $(hostname)"], hostname="box", limits=pyrt.Limits(time=10))
    print(done.stdout.decode().strip(), "-", done.verdict)
    print("the start took", done.timing.total / 1e6, "ms; its slowest steps:")
    marks = done.timing.marks
    spans = [(after.at - before.at, after) for before, after in pairwise(marks)]
    for span, mark in sorted(spans, key=lambda pair: -pair[0])[:5]:
        print(f"  {span / 1000:7.0f} us  {mark.part}: {mark.name}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "host")
