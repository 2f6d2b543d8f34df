"""How many containers a second, from nothing to nothing left of them, and how many of them at once make that best."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import trio

import pyrt
from pyrt.bench import commands, floor, peers, pictures, results
from pyrt.bench.cases import Case, interleave, unavailable
from pyrt.bench.ground import CLOCK, IMAGE, prepared

if TYPE_CHECKING:
    from pathlib import Path

    from benches.scale import Scale

    from pyrt.bench.cases import Sample
    from pyrt.bench.floor import Floor
    from pyrt.bench.ground import Ground
    from pyrt.bench.peers import Commands
    from pyrt.bench.results import Document, Run

NAME: Final = "throughput"
AT_ONCE: Final = (1, 8, 32, 128)
NETWORKS: Final = {"none": "a net namespace each", "host": "on the host's network"}
_BATCH: Final = 192
"""Containers of one sample, so that the beginning and the end, where fewer are under way, weigh little."""
_PEERS: Final = ("bubblewrap", "crun", "runc")
_PEERS_BATCH: Final = 48


async def measure(scale: Scale) -> Document:
    at_once = AT_ONCE if scale.whole else AT_ONCE[:2]
    with prepared() as ground:
        os.environ.update(PYRT_ROOT=str(ground.root), PYRT_RUN=str(ground.run))
        async with pyrt.open_engine(warm=0) as engine:
            [image] = await engine.load(ground.archive, name=IMAGE)
            lowers = [*image.layers, str(ground.root / "scaffold")]
            program = floor.compiled(ground)
            with peers.commands(ground, _PEERS) as others:
                runs = [
                    await _run(
                        scale, engine, network, program, lowers, others if network == "none" else {}, at_once, ground
                    )
                    for network in NETWORKS
                ]
    return results.document(NAME, runs)


async def _run(
    scale: Scale,
    engine: pyrt.Engine,
    network: str,
    program: Floor | str,
    lowers: list[str],
    others: dict[str, Commands | str],
    at_once: tuple[int, ...],
    ground: Ground,
) -> Run:
    batch, few = (_BATCH, _PEERS_BATCH) if scale.whole else (8, 4)
    cases = []
    for number in at_once:
        count = max(batch, number)
        more = [] if network == "none" else ["--no-network"]
        cases += [
            _floor_case(f"floor, {number}", program, lowers, more, number, count),
            Case(f"pyrt, library, {number}", _by_library(engine, network, number, count)),
            *(
                _peer_case(f"{name}, {number}", found, ground, number, max(few, number))
                for name, found in others.items()
            ),
        ]
    await interleave(cases, scale.slow_samples, warmup=1)
    return results.summarized(NETWORKS[network], "containers a second", cases, f"floor, {at_once[-1]}")


def _floor_case(name: str, program: Floor | str, lowers: list[str], more: list[str], at_once: int, count: int) -> Case:
    if isinstance(program, str):
        return unavailable(name, program)

    async def sample() -> dict[str, float]:
        return {"rate": program.throughput(lowers, more, at_once, count, CLOCK)}

    return Case(name, sample)


def _by_library(engine: pyrt.Engine, network: str, at_once: int, count: int) -> Sample:
    async def sample() -> dict[str, float]:
        begun = time.monotonic()
        left = iter(range(count))

        async def work() -> None:
            for _ in left:
                done = await engine.run(IMAGE, [CLOCK], network=network)
                assert done.exit_code == 0, done.stderr

        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(work)
        await engine.settled()
        return {"rate": count / (time.monotonic() - begun)}

    return sample


def _peer_case(name: str, found: Commands | str, ground: Ground, at_once: int, count: int) -> Case:
    if isinstance(found, str):
        return unavailable(name, found)

    def start(_: int) -> None:
        commands.run([*found.start()], ground.environment, found.files)

    async def sample() -> dict[str, float]:
        begun = time.monotonic()
        with ThreadPoolExecutor(at_once) as threads:
            await trio.to_thread.run_sync(lambda: [*threads.map(start, range(count))])
        return {"rate": count / (time.monotonic() - begun)}

    return Case(name, sample)


def draw(found: Document, folder: Path) -> list[Path]:
    return pictures.throughput(found, folder)
