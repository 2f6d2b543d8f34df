"""Layer extraction with both digests against what others take: `python -m benches.extraction [LAYER.tar.gz]`.

Without an argument the layer is a Debian minbase that mmdebstrap makes. Each run writes into a fresh folder; all
folders are removed only at the end, because extracting right after deleting a tree is many times slower on ext4.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from benches import timing
from benches.timing import Case

from pyrt import _native

HERE = Path(__file__).parent
Sample = Callable[[], Awaitable[dict[str, float]]]


def debian_layer(folder: Path) -> Path:
    """A gzip-compressed minbase."""
    layer = folder / "debian.tar.gz"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", layer], check=True)
    return layer


def timed(work: Callable[[Path], object], folders: itertools.count[int], place: Path) -> Sample:
    async def sample() -> dict[str, float]:
        target = place / str(next(folders))
        target.mkdir()
        begun = time.monotonic_ns()
        work(target)
        return {"whole": (time.monotonic_ns() - begun) / 1e6}

    return sample


def by_pyrt(layer: Path, target: Path) -> None:
    source, directory = os.open(layer, os.O_RDONLY), os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _native.extract_layer(source, directory)
    finally:
        os.close(source)
        os.close(directory)


def by_command(*words: str | Path) -> Callable[[Path], object]:
    return lambda target: subprocess.run([*words, "-C", target], check=True, stderr=subprocess.DEVNULL)


async def measure(title: str, layer: Path, samples: int, place: Path, out: Path) -> None:
    folders = itertools.count()
    cases = [
        Case("pyrt, both digests", timed(lambda target: by_pyrt(layer, target), folders, place)),
        Case("tar xzf", timed(by_command("tar", "--numeric-owner", "-xpzf", layer), folders, place), "no digest"),
        Case("bsdtar", timed(by_command("bsdtar", "-xpf", layer), folders, place), "no digest"),
    ]
    await timing.interleave(cases, samples, warmup=1)
    print(timing.table(title, cases, "tar xzf"))
    timing.write(out, {title: cases})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layer", type=Path, nargs="?")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--out", type=Path, default=HERE.parent / "build/benches/extraction.json")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="pyrt-bench-", dir=os.environ.get("PYRT_BENCH_DIR")))
    try:
        layer = options.layer or debian_layer(place)
        title = f"extraction of {layer.name}, {layer.stat().st_size >> 20} MiB"
        trio.run(measure, title, layer, options.samples, place, options.out)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
