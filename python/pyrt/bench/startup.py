"""How long a start takes: the floor, pyrt, whatever else is installed, and a virtual machine.

``ready`` is from the request (the call of the library, the execve of a command) to the first instruction of the
container's own program, ``whole`` until the request has been answered. ``hot`` is back to back; ``gap`` has 100 ms of
quiet before each start, which is how people start containers, and where a kernel's slow paths show.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

import pyrt
from pyrt.bench import floor, guest, peers, results
from pyrt.bench.cases import Case, afresh, interleave
from pyrt.bench.commands import CommandFailed, stamped
from pyrt.bench.ground import CLOCK, IMAGE, Ground, prepared, serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import trio

    from pyrt.bench.cases import Sample
    from pyrt.bench.results import Document, Run
    from pyrt.engine.results import Completed

NAME: Final = "startup"
HOT: Final = "hot"
GAP: Final = "after 100 ms of quiet"
GUEST: Final = "virtual machine"
LIBRARY: Final = "pyrt, library"
COMMAND: Final = "pyrt run"
WARM: Final = "pyrt, library, warm"
QUIET: Final = 0.1
_UNTIL_WARM: Final = 3
"""Starts after which an engine has begun to keep containers of an image ready."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of each case: back to back, with gaps of ``quiet`` seconds, and of the virtual machine (0: none)."""

    samples: int = 200
    gap_samples: int = 50
    guest_samples: int = 10
    quiet: float = QUIET


async def measure(options: Options, scope: trio.CancelScope, say: Callable[[str], None] = print) -> Document:
    """The whole bench; cut short if ``scope`` is cancelled. ``say`` is told each table as soon as there is one.

    Raises HostError.
    """
    runs: list[Run] = []
    with prepared() as ground, ExitStack() as stack:
        os.environ.update(PYRT_ROOT=str(ground.root), PYRT_RUN=str(ground.run))
        # What one has parked for later is in nobody else's way, and in a start of the other's not at all.
        async with pyrt.open_engine(warm=0) as engine, pyrt.open_engine() as warm:
            [image] = await engine.load(ground.archive, name=IMAGE)
            for _ in range(_UNTIL_WARM):
                await warm.run(IMAGE, [CLOCK])
            lowers = [*image.layers, str(ground.root / "scaffold")]
            floors = stack.enter_context(floor.cases(ground, lowers, CLOCK))
            client = stack.enter_context(serving(ground))
            others = stack.enter_context(peers.start_cases(ground))
            # Within the engine: what is cancelled around it is its own work as well.
            with scope:
                for title, gap, samples in ((HOT, 0.0, options.samples), (GAP, options.quiet, options.gap_samples)):
                    cases = afresh([*floors, *_of_pyrt(engine, warm, client, ground), *others])
                    await interleave(cases, samples, gap=gap)
                    runs.append(results.summarized(title, "ms", cases, floor.NAME))
                    say(results.table(runs[-1]))
                runs += await _guests(ground, options.guest_samples, say)
    return results.document(NAME, runs, published=[guest.FIRECRACKER])


def _of_pyrt(engine: pyrt.Engine, warm: pyrt.Engine, client: str, ground: Ground) -> list[Case]:
    """The command gets what people get: a start that is not the first is a warm one, if there was time to make it."""
    words = [client, "run", "--rm", IMAGE, CLOCK]
    return [
        Case(LIBRARY, _called(lambda: engine.run(IMAGE, [CLOCK])), settle=engine.settled),
        Case(WARM, _called(lambda: warm.run(IMAGE, [CLOCK])), settle=lambda: _filled(warm)),
        Case(
            "pyrt, library, host's network",
            _called(lambda: engine.run(IMAGE, [CLOCK], network="host")),
            missing="net namespace",
            settle=engine.settled,
        ),
        Case(COMMAND, stamped(ground, lambda: words)),
    ]


async def _filled(warm: pyrt.Engine) -> None:
    await warm.settled()
    await warm.pool.filled()


def _called(start: Callable[[], Awaitable[Completed]]) -> Sample:
    """A call of the engine in this process, whose container runs the clock."""

    async def sample() -> dict[str, float]:
        begun = time.monotonic_ns()
        done = await start()
        ended = time.monotonic_ns()
        if done.exit_code:
            raise CommandFailed(done.stderr.decode(errors="replace"))
        return {"ready": (int(done.stdout) - begun) / 1e6, "whole": (ended - begun) / 1e6}

    return sample


async def _guests(ground: Ground, samples: int, say: Callable[[str], None]) -> list[Run]:
    if not samples:
        return []
    case = guest.case(ground)
    if not case.failure:
        await interleave([case], samples, warmup=1)
    run = results.summarized(GUEST, "ms", [case], case.name)
    say(results.table(run))
    return [run]


def hide_cgroup2(words: Sequence[str]) -> None:
    """crun before 1.9 refuses a host with controllers on both cgroup versions: shows all cases version 1 alone.

    In a mount namespace of our own, which this process enters by starting anew as ``words``.
    """
    unified = Path("/sys/fs/cgroup/unified")
    if os.geteuid() == 0 and unified.is_mount() and "PYRT_BENCH_INSIDE" not in os.environ:
        os.environ["PYRT_BENCH_INSIDE"] = "1"
        script = f'umount {unified} && exec "$@"'
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *words])


def this_program() -> list[str]:
    """The command line that started this very process."""
    return [sys.executable, *sys.orig_argv[1:]]
