"""What an idle container takes beyond its own process: the keeper's memory, the engine's, the kernel's.

User memory is the proportional set size (Pss) of each process, which shares what was forked. The kernel's is counted
twice: what the cgroups were charged with (page tables, stacks, sockets), and by what the whole machine's counters grew,
which has what nobody is charged with (net namespaces, mounts) and on a busy machine noise.

The last rows are what is not ours to save: the floor's container, which has no keeper; the process itself, without any
container; and an empty cgroup of the memory controller, whose size depends on the machine's past (a KiB for each 64
file systems that were ever mounted at once: mm/shrinker.c).
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING, Final

import trio

import pyrt
from pyrt import _native
from pyrt.bench import results
from pyrt.bench.cases import Case, interleave, unavailable
from pyrt.bench.floor import compiled
from pyrt.bench.ground import IDLE, IMAGE, LINGER, prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from benches.scale import Scale

    from pyrt.bench.cases import Sample
    from pyrt.bench.ground import Ground
    from pyrt.bench.results import Document

NAME: Final = "memory"
_MANY: Final = 100
# Of /proc/meminfo (proc_meminfo(5)): all that the kernel allocates for itself on behalf of processes.
_KERNEL: Final = ("SUnreclaim", "KernelStack", "PageTables", "Percpu")


async def measure(scale: Scale) -> Document:
    many = _MANY if scale.whole else 3
    with prepared() as ground:
        os.environ.update(PYRT_ROOT=str(ground.root), PYRT_RUN=str(ground.run))
        async with pyrt.open_engine(warm=0) as engine:
            [image] = await engine.load(ground.archive, name=IMAGE)
            lowers = [*image.layers, str(ground.root / "scaffold")]
            cases = [
                Case("a net namespace each", _idle(engine, "none", many)),
                Case("on the host's network", _idle(engine, "host", many), missing="net namespace"),
                *_of_the_floor(ground, lowers, many),
                Case("its process alone", _grown(lambda: _processes(ground, many), many), missing="container"),
                Case("an empty memory cgroup", _grown(lambda: _groups(many), many), missing="container"),
            ]
            await interleave(cases, scale.slow_samples, warmup=1)
    run = results.summarized(f"an idle container, one of {many}", "KiB", cases, cases[0].name)
    return results.document(NAME, [run])


def _idle(engine: pyrt.Engine, network: str, many: int) -> Sample:
    async def sample() -> dict[str, float]:
        before = _kernel(), _pss(os.getpid())
        async with trio.open_nursery() as nursery:
            containers = [await nursery.start(_keep_one, engine, network) for _ in range(many)]
            # A keeper lets go of what only the start needed when its container is 50 ms old.
            await trio.sleep(0.2)
            after = _kernel(), _pss(os.getpid())
            keepers = sum(_pss(_parent(container.pid)) for container in containers)
            charged = sum(_charged(container.id) for container in containers)
            nursery.cancel_scope.cancel()
        await engine.settled()
        figures = {
            "keeper": keepers,
            "engine": after[1] - before[1],
            "charged": charged,
            "machine": after[0] - before[0],
        }
        figures["in all"] = figures["keeper"] + figures["engine"] + figures["machine"]
        return {name: kibibytes / many for name, kibibytes in figures.items()}

    return sample


def _of_the_floor(ground: Ground, lowers: Sequence[str], many: int) -> Iterator[Case]:
    floor = compiled(ground)
    for name, missing, more in (("floor", "", ()), ("floor, host's network", "net namespace", ("--no-network",))):
        if isinstance(floor, str):
            yield unavailable(name, floor)
        else:
            kept = partial(floor.keeping, lowers, more, many, LINGER)
            yield Case(name, _grown(kept, many), missing=missing)


def _grown(kept: Callable[[], AbstractContextManager[object]], many: int) -> Sample:
    """What the kernel takes for each of what is there for the time of the block."""

    async def sample() -> dict[str, float]:
        before = _kernel()
        with kept():
            grown = (_kernel() - before) / many
        return {"machine": grown, "in all": grown}

    return sample


@contextmanager
def _processes(ground: Ground, many: int) -> Iterator[None]:
    idle = str(ground.rootfs) + IDLE
    processes = [os.posix_spawn(idle, [idle], {}) for _ in range(many)]
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, SIGKILL)
            os.waitpid(pid, 0)


@contextmanager
def _groups(many: int) -> Iterator[None]:
    top = Path(_native.host()["controllers"]["memory"])
    groups = [top / f"pyrt-bench-{os.getpid()}-{number}" for number in range(many)]
    try:
        for group in groups:
            group.mkdir()
        yield
    finally:
        for group in groups:
            group.rmdir()


async def _keep_one(engine: pyrt.Engine, network: str, task_status: trio.TaskStatus[pyrt.Container]) -> None:
    async with engine.open_container(IMAGE, [IDLE], network=network) as container:
        task_status.started(container)
        await trio.sleep_forever()


def _pss(pid: int) -> int:
    """KiB."""
    return _number(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def _parent(pid: int) -> int:
    return _number(Path(f"/proc/{pid}/status"), "PPid:")


def _number(file: Path, key: str) -> int:
    for line in file.read_text().splitlines():
        name, *values = line.split()
        if name == key:
            return int(values[0])
    raise LookupError(f"{file} has no {key}")


def _kernel() -> int:
    """KiB."""
    return sum(_number(Path("/proc/meminfo"), f"{name}:") for name in _KERNEL)


def _charged(container: str) -> float:
    """KiB of kernel memory that its cgroup was charged with."""
    group = Path(_native.host()["controllers"]["memory"]) / "pyrt" / container
    usage = group / "memory.kmem.usage_in_bytes"
    if usage.exists():
        return int(usage.read_text()) / 1024
    return _number(group / "memory.stat", "kernel") / 1024
