"""A detached start beside an attached one: `pyrt run -d` is to cost no more than `pyrt run`. Both keep a container."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyrt
from pyrt.bench import results
from pyrt.bench.cases import Case, afresh, interleave
from pyrt.bench.commands import clocks, run
from pyrt.bench.ground import CLOCK, IMAGE, Ground, prepared, serving
from pyrt.bench.startup import GAP, HOT

if TYPE_CHECKING:
    from benches.scale import Scale

    from pyrt.bench.cases import Sample
    from pyrt.bench.results import Document

NAME: Final = "detaching"
ATTACHED: Final = "pyrt run"


async def measure(scale: Scale) -> Document:
    with prepared() as ground:
        os.environ.update(PYRT_ROOT=str(ground.root), PYRT_RUN=str(ground.run))
        async with pyrt.open_engine() as engine:
            await engine.load(ground.archive, name=IMAGE)
        with serving(ground) as client:
            runs = []
            for title, gap, samples in ((HOT, 0.0, scale.samples), (GAP, scale.quiet, scale.gap_samples)):
                words = {ATTACHED: (), f"{ATTACHED} -d": ("-d",)}
                cases = afresh([Case(name, kept(ground, client, *flags)) for name, flags in words.items()])
                await interleave(cases, samples, gap=gap)
                runs.append(results.summarized(title, "ms", cases, ATTACHED))
    return results.document(NAME, runs)


def kept(ground: Ground, client: str, *flags: str) -> Sample:
    """A start whose container is there when it has ended; what it printed may be in its log alone.

    It is removed before the sample returns, outside the time that is taken.
    """
    name = ground.root / "cidfile"

    async def sample() -> dict[str, float]:
        words = [client, "run", "--cidfile", str(name), *flags, IMAGE, CLOCK]
        output, ended = run([ground.stamp, *words], ground.environment)
        container = name.read_text().strip()
        name.unlink()
        run([client, "wait", container], ground.environment)
        if flags:
            _, _, _, text = logged(ground, container).split()
            output = output.split()[0] + b" " + text
        begun, ready = clocks(output)
        run([client, "rm", container], ground.environment)
        return {"ready": (ready - begun) / 1e6, "whole": (ended - begun) / 1e6}

    return sample


def logged(ground: Ground, container: str) -> bytes:
    return Path(ground.root, "containers", container, "log").read_bytes()
