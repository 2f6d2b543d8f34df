"""How far a pull or a load is: bars on a terminal, nothing elsewhere.

rich draws them, into a buffer: what a refresh has drawn goes to the user's terminal in one piece, and a slow terminal
slows down nothing but the drawing.
"""

from __future__ import annotations

import io
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from pyrt.cli import figures
from pyrt.cli.console import STDERR
from pyrt.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyrt.cli.console import Console
    from pyrt.images.progress import Callback, Progress

_REFRESH: Final = 0.1
"""Seconds."""
_LAST_WORDS: Final = 1.0
"""Seconds that a terminal has to take the last drawing, with which its cursor comes back."""
_NARROWEST: Final = 40


@asynccontextmanager
async def progress_for(console: Console, *, quiet: bool) -> AsyncIterator[Callback | None]:
    """A function that may be told from any thread; None if nobody would see it."""
    if (
        quiet
        or not console.terminals[STDERR]
        or console.columns < _NARROWEST
        or console.environment.get("TERM") == "dumb"
    ):
        yield None
        return
    bars = await in_thread(Bars, console.columns, console.has_colour(STDERR))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep_drawn, console, bars)
        try:
            yield bars.tell
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_WORDS):
                await console.write(STDERR, bars.last())


async def _keep_drawn(console: Console, bars: Bars) -> None:
    while True:
        await console.write(STDERR, bars.draw(console.columns))
        await trio.sleep(_REFRESH)


class Bars:
    """A bar a layer."""

    def __init__(self, columns: int, colour: bool) -> None:
        import rich.console
        import rich.progress

        self._buffer = io.StringIO()
        self._layers: dict[str, Progress] = {}
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._console = rich.console.Console(
            file=self._buffer,
            force_terminal=True,
            width=columns,
            color_system="standard" if colour else None,
            legacy_windows=False,
            _environ={},
        )
        self._progress = rich.progress.Progress(
            rich.progress.TextColumn("{task.fields[layer]}"),
            rich.progress.TextColumn("{task.fields[state]:<11}"),
            rich.progress.BarColumn(bar_width=None),
            rich.progress.TextColumn("{task.fields[amount]:>15}"),
            console=self._console,
            auto_refresh=False,
            expand=True,
        )
        self._progress.start()

    def tell(self, progress: Progress) -> None:
        """Takes a layer's state; shows it with the next drawing."""
        self._layers[progress.layer] = progress

    def draw(self, columns: int) -> bytes:
        """What changes the terminal from the last drawing to this one."""
        self._console.width = columns
        for layer, progress in list(self._layers.items()):
            self._show(layer, progress)
        self._progress.refresh()
        return self._take()

    def last(self) -> bytes:
        """The last drawing, which leaves the cursor below."""
        self.draw(self._console.width)
        self._progress.stop()
        return self._take()

    def _show(self, layer: str, progress: Progress) -> None:
        if layer not in self._tasks:
            self._tasks[layer] = self._progress.add_task("", layer=figures.short(layer), state="", amount="")
        total = progress.total or 0
        is_done = progress.state in {"done", "exists"}
        current = total if is_done or progress.state == "extracting" else progress.current
        self._progress.update(
            self._tasks[layer],
            total=total or None,
            completed=current,
            state=progress.state,
            amount=_amount(current, total, progress.state),
        )

    def _take(self) -> bytes:
        text = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return text.encode()


def _amount(current: int, total: int, state: str) -> str:
    if state in {"waiting", "exists"} or not total:
        return figures.size(total) if total else ""
    return f"{figures.size(current)}/{figures.size(total)}" if current < total else figures.size(total)
