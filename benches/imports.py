"""What one pays before anything happens: imports, and verbs that have nothing to do."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

import trio

import pyrt
from pyrt.bench import results
from pyrt.bench.cases import Case, interleave
from pyrt.bench.commands import run
from pyrt.bench.ground import CLOCK, IMAGE, prepared, serving
from pyrt.runtime.options import make_options

if TYPE_CHECKING:
    from benches.scale import Scale

    from pyrt.bench.cases import Sample
    from pyrt.bench.ground import Ground
    from pyrt.bench.results import Document, Run

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
        for containers in (0, 1000 if scale.whole else 2):
            await _leave_containers(ground, containers)
            runs.append(await _verbs(ground, containers, scale.samples))
    return results.document(NAME, runs)


async def _verbs(ground: Ground, containers: int, samples: int) -> Run:
    with serving(ground) as client:
        lines = (["version"], ["ps"], ["ps", "--all"], ["images"], ["help"])
        cases = [Case(f"pyrt {' '.join(line)}", _whole(ground, [client, *line])) for line in lines]
        await interleave(cases, samples)
    return results.summarized(f"verbs, with {containers:,} ended containers", "ms", cases, "pyrt version")


def _whole(ground: Ground, words: list[str]) -> Sample:
    """From the command's execve to its end."""

    async def sample() -> dict[str, float]:
        output, ended = run([ground.stamp, *words], ground.environment)
        return {"whole": (ended - int(output.split(b"\n", 1)[0])) / 1e6}

    return sample


async def _leave_containers(ground: Ground, count: int) -> None:
    """Has so many containers on record that have ended."""
    if not count:
        return
    async with pyrt.open_engine() as engine:
        await engine.load(ground.archive, name=IMAGE)
        left = iter(range(count))

        async def work() -> None:
            for _ in left:
                container = await engine.start(IMAGE, make_options([CLOCK], None), keep=True)
                await container.wait()
                container.close_streams()

        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(work)
