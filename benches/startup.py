"""Start-up beside everything else that is installed: what `pyrt bench startup` measures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from pyrt.bench import pictures, startup

if TYPE_CHECKING:
    from pathlib import Path

    from benches.scale import Scale

    from pyrt.bench.results import Document

NAME: Final = startup.NAME


async def measure(scale: Scale) -> Document:
    guests = scale.slow_samples if scale.whole else 0
    return await startup.measure(
        startup.Options(samples=scale.samples, gap_samples=scale.gap_samples, guest_samples=guests, quiet=scale.quiet),
        trio.CancelScope(),
        say=lambda table: None,
    )


def draw(found: Document, folder: Path) -> list[Path]:
    return pictures.startup(found, folder)
