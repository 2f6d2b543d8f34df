"""What one pays before anything happens: imports, and verbs that have nothing to do."""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import trio

import pyrt
from pyrt.bench import results
from pyrt.bench.cases import Case, interleave
from pyrt.bench.commands import run
from pyrt.bench.ground import CLOCK, IDLE, IMAGE, prepared, serving
from pyrt.runtime.options import make_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from benches.scale import Scale

    from pyrt.bench.cases import Sample
    from pyrt.bench.ground import Ground
    from pyrt.bench.results import Document, Run

T = TypeVar("T")
NAME: Final = "imports"
_SCRIPTS: Final = {
    "python -c pass": "pass",
    "import pyrt": "import pyrt",
    "import trio": "import trio",
    "import pyrt, and its engine": "import pyrt; pyrt.open_engine",
    "import asyncio": "import asyncio",
}


async def measure(scale: Scale) -> Document:
    with prepared(layers=1) as ground:
        os.environ.update(PYRT_ROOT=str(ground.root), PYRT_RUN=str(ground.run))
        imports = [Case(name, _whole(ground, [sys.executable, "-c", script])) for name, script in _SCRIPTS.items()]
        await interleave(imports, scale.gap_samples)
        runs = [results.summarized("a Python program that does nothing", "ms", imports, "python -c pass")]
        many = 1000 if scale.whole else 2
        runs.append(await _verbs(ground, "no containers", scale.samples))
        await _leave_containers(ground, many)
        runs.append(await _verbs(ground, f"{many:,} ended containers", scale.samples))
        async with _running_containers(many):
            runs.append(await _verbs(ground, f"{many:,} ended containers and {many:,} that run", scale.samples))
    return results.document(NAME, runs)


async def _verbs(ground: Ground, containers: str, samples: int) -> Run:
    with serving(ground) as client:
        lines = (["version"], ["ps"], ["ps", "--all"], ["images"], ["help"])
        cases = [Case(f"pyrt {' '.join(line)}", _whole(ground, [client, *line])) for line in lines]
        await interleave(cases, samples)
    return results.summarized(f"verbs, with {containers}", "ms", cases, "pyrt version")


def _whole(ground: Ground, words: list[str]) -> Sample:
    """From the command's execve to its end."""

    async def sample() -> dict[str, float]:
        output, ended = run([ground.stamp, *words], ground.environment)
        return {"whole": (ended - int(output.split(b"\n", 1)[0])) / 1e6}

    return sample


async def _leave_containers(ground: Ground, count: int) -> None:
    """Has so many containers on record that have ended."""

    async def leave(engine: pyrt.Engine) -> None:
        container = await engine.start(IMAGE, make_options([CLOCK], None), keep=True)
        await container.wait()
        container.close_streams()

    async with pyrt.open_engine() as engine:
        await engine.load(ground.archive, name=IMAGE)
        await _for_each([engine] * count, leave)


@asynccontextmanager
async def _running_containers(count: int) -> AsyncIterator[None]:
    """As many that run, for the time of the block."""

    async def run_idle(engine: pyrt.Engine) -> None:
        records.append(await engine.run_detached(IMAGE, make_options([IDLE], None)))

    records: list[pyrt.Record] = []
    async with pyrt.open_engine() as engine:
        await _for_each([engine] * count, run_idle)
    yield
    async with pyrt.open_engine() as engine:
        await _for_each(records, lambda record: engine.remove(record.id, force=True))


async def _for_each(things: Iterable[T], work: Callable[[T], Awaitable[object]]) -> None:
    left = iter(things)

    async def take() -> None:
        for thing in left:
            await work(thing)

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(take)
