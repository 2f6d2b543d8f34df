"""What a start must not depend on: the caller's memory and threads, the host's mounts, other containers, layers."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

import pyrt
from pyrt.bench import pictures, results
from pyrt.bench.cases import Case, interleave
from pyrt.bench.ground import LAYERS, prepared, write_archive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benches.scale import Scale

    from pyrt.bench.cases import Sample
    from pyrt.bench.ground import Ground
    from pyrt.bench.results import Document, Run

NAME: Final = "slopes"


class Slope(NamedTuple):
    """``cases``: name and options of ``benches.starter``. ``alone``: they would disturb each other side by side."""

    title: str
    cases: dict[str, list[str]]
    alone: bool = False


WHOLE: Final = (
    Slope(
        "memory of the calling program",
        {
            "50 MB": ["--ballast", "50"],
            "200 MB": ["--ballast", "200"],
            "500 MB": ["--ballast", "500"],
            "500 MB,\n16 threads": ["--ballast", "500", "--threads", "16"],
        },
    ),
    Slope("mounts on the host", {"20": [], "1,000": ["--mounts", "1000"], "5,000": ["--mounts", "5000"]}),
    Slope(
        "containers alive", {"1": ["--alive", "1"], "100": ["--alive", "100"], "1,000": ["--alive", "1000"]}, alone=True
    ),
    Slope("layers of the image", {"1": ["--layers", "1"], "20": ["--layers", "20"], "120": ["--layers", "120"]}),
)
SMALL: Final = (
    Slope(
        "memory of the calling program",
        {"1 MB": ["--ballast", "1"], "2 MB, 1 thread": ["--ballast", "2", "--threads", "1"]},
    ),
    Slope("mounts on the host", {"60": ["--mounts", "60"]}),
    Slope("containers alive", {"1": ["--alive", "1"]}, alone=True),
    Slope("layers of the image", {"2": ["--layers", "2"]}),
)


async def measure(scale: Scale) -> Document:
    slopes = WHOLE if scale.whole else SMALL
    with prepared() as ground:
        os.environ.update(PYRT_ROOT=str(ground.root), PYRT_RUN=str(ground.run))
        await _load_images(ground, slopes)
        runs = [await _run(ground, slope, scale.samples) for slope in slopes]
    return results.document(NAME, runs)


async def _load_images(ground: Ground, slopes: tuple[Slope, ...]) -> None:
    async with pyrt.open_engine() as engine:
        for layers in {_layers(options) for slope in slopes for options in slope.cases.values()}:
            archive = ground.folder / f"{layers}.tar"
            write_archive(archive, ground.rootfs, layers, _image(layers))
            await engine.load(archive)


def _layers(options: list[str]) -> int:
    return int(options[options.index("--layers") + 1]) if "--layers" in options else LAYERS


def _image(layers: int) -> str:
    return f"bench/layers:{layers}"


async def _run(ground: Ground, slope: Slope, samples: int) -> Run:
    """The first case is what the others are multiples of."""
    cases: list[Case] = []
    if slope.alone:
        for name, options in slope.cases.items():
            with _starter(ground, options) as sample:
                cases.append(Case(name, sample))
                await interleave(cases[-1:], samples)
    else:
        with ExitStack() as stack:
            cases = [Case(name, stack.enter_context(_starter(ground, more))) for name, more in slope.cases.items()]
            await interleave(cases, samples)
    return results.summarized(slope.title, "ms", cases, cases[0].name)


@contextmanager
def _starter(ground: Ground, options: list[str]) -> Iterator[Sample]:
    """A running ``benches.starter``."""
    layers = _layers(options)
    rest = [word for word in options if word not in {"--layers", str(layers)}] if "--layers" in options else options
    words = [sys.executable, "-m", "benches.starter", "--image", _image(layers), *rest]
    # A mount namespace of its own, so that nobody else has its mounts.
    apart = ["unshare", "--mount", "--propagation", "private", *words]
    starter = subprocess.Popen(apart, env=ground.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert starter.stdin is not None
    assert starter.stdout is not None
    asking, answers = starter.stdin, starter.stdout

    async def sample() -> dict[str, float]:
        asking.write("\n")
        asking.flush()
        return msgspec.json.decode(answers.readline(), type=dict[str, float])

    try:
        assert answers.readline() == "ready\n", "the starter did not start"
        yield sample
    finally:
        starter.communicate()


def draw(found: Document, folder: Path) -> list[Path]:
    return pictures.slopes(found, folder)
