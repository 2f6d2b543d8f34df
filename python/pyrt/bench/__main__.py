"""``python -m pyrt.bench``: what `pyrt bench` and `pyrt inspect --timing --plot` start, in a process of its own."""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import trio

from pyrt.errors import PyrtError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

NO_PICTURES: Final = "pictures need matplotlib: pip install 'pyrt[bench]'"
_STOPPED: Final = 130
"""Exit status of a program that a person has interrupted."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pyrt.bench", description=__doc__)
    verbs = parser.add_subparsers(required=True)
    startup = verbs.add_parser("startup", help="how long starts take on this machine, beside other tools")
    startup.set_defaults(act=measure_startup)
    for name, usual in (("samples", 200), ("gap-samples", 50), ("guest-samples", 10)):
        startup.add_argument(f"--{name}", type=int, default=usual)
    startup.add_argument("--out", type=Path, default=Path("pyrt-bench"))
    waterfall = verbs.add_parser("waterfall", help="draws the steps of one start, which are read as JSON")
    waterfall.set_defaults(act=draw_waterfall)
    waterfall.add_argument("--out", type=Path, required=True)
    waterfall.add_argument("--title", default="")
    options = parser.parse_args()
    try:
        return int(options.act(options))
    except PyrtError as error:
        print(f"pyrt: {error.message}", *([f"hint: {error.hint}"] if error.hint else []), sep="\n", file=sys.stderr)
        return error.exit_code


def measure_startup(options: argparse.Namespace) -> int:
    """Measures, and leaves samples and a picture in the folder."""
    from pyrt.bench import results, startup

    startup.hide_cgroup2(startup.this_program())
    wanted = startup.Options(
        samples=options.samples, gap_samples=options.gap_samples, guest_samples=options.guest_samples
    )
    scope = trio.CancelScope()
    found = trio.run(_measured, partial(startup.measure, wanted, scope), scope)
    if scope.cancelled_caught:
        return _STOPPED
    print(f"samples: {results.write(found, options.out)}")
    try:
        from pyrt.bench import pictures
    except ImportError:
        print(NO_PICTURES)
    else:
        print(*(f"picture: {path}" for path in pictures.startup(found, options.out)), sep="\n")
    return 0


def draw_waterfall(options: argparse.Namespace) -> int:
    """Reads marks from the standard input."""
    try:
        from pyrt.bench import pictures
    except ImportError:
        print(f"pyrt: {NO_PICTURES}", file=sys.stderr)
        return 1
    from pyrt.bench.spans import Mark, spans_of

    marks = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Mark])
    pictures.waterfall(spans_of(marks), [options.out], f"One start, step by step: {options.title}")
    return 0


async def _measured(measure: Callable[[], Awaitable[T]], scope: trio.CancelScope) -> T:
    """Measures; a signal cancels ``scope``, and what was started is cleared up."""

    async def watch() -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as numbers:
            async for _ in numbers:
                scope.cancel()

    trio.lowlevel.spawn_system_task(watch)
    return await measure()


if __name__ == "__main__":
    sys.exit(main())
