"""Another command in a container that runs already: `pyrt exec` beside `docker exec` and the others."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

import pyrt
from pyrt.bench import peers, results
from pyrt.bench.cases import Case, afresh, interleave
from pyrt.bench.commands import stamped
from pyrt.bench.ground import CLOCK, IDLE, IMAGE, prepared, serving
from pyrt.bench.startup import GAP, HOT

if TYPE_CHECKING:
    from benches.scale import Scale

    from pyrt.bench.cases import Sample
    from pyrt.bench.results import Document

NAME: Final = "joining"
COMMAND: Final = "pyrt exec"


async def measure(scale: Scale) -> Document:
    with prepared() as ground:
        os.environ.update(PYRT_ROOT=str(ground.root), PYRT_RUN=str(ground.run))
        async with pyrt.open_engine() as engine:
            await engine.load(ground.archive, name=IMAGE)
            async with engine.open_container(IMAGE, [IDLE], name="bench") as container:
                # The command reaches it as well, though it is this engine's and not the server's.
                with serving(ground) as client, peers.join_cases(ground) as others:
                    words = [client, "exec", "bench", CLOCK]
                    ours = [Case("pyrt, library", joined(container)), Case(COMMAND, stamped(ground, lambda: words))]
                    runs = []
                    for title, gap, samples in ((HOT, 0.0, scale.samples), (GAP, scale.quiet, scale.gap_samples)):
                        cases = afresh([*ours, *others])
                        await interleave(cases, samples, gap=gap)
                        runs.append(results.summarized(title, "ms", cases, COMMAND))
    return results.document(NAME, runs)


def joined(container: pyrt.Container) -> Sample:
    async def sample() -> dict[str, float]:
        begun = time.monotonic_ns()
        done = await container.exec([CLOCK])
        ended = time.monotonic_ns()
        return {"ready": (int(done.stdout) - begun) / 1e6, "whole": (ended - begun) / 1e6}

    return sample
