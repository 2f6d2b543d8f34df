"""Events a second from the journal to readers: to one, and to ten of which one has stopped reading.

The writer waits for nobody. The reader that has stopped goes on in the end, and has to find every event.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import trio

import pyrt
from pyrt.bench import results
from pyrt.bench.cases import Case, interleave
from pyrt.bench.ground import prepared
from pyrt.engine.events import ContainerSignaled

if TYPE_CHECKING:
    from benches.scale import Scale

    from pyrt.bench.cases import Sample
    from pyrt.bench.results import Document
    from pyrt.engine.feed import EventStream
    from pyrt.engine.journal import Transaction

NAME: Final = "events"
_EVENTS: Final = 100_000
_TRANSACTION: Final = 100
"""Events that are recorded together, as on a machine where a lot happens at once."""


async def measure(scale: Scale) -> Document:
    events = _EVENTS if scale.whole else 1000
    with prepared(layers=1) as ground:
        async with pyrt.open_engine(ground.root, run_dir=ground.run, kept_events=10 * events) as engine:
            cases = [
                Case("journal, nobody reads", _case(engine, events, readers=0, stopped=0)),
                Case("1 reader", _case(engine, events, readers=1, stopped=0)),
                Case("10 readers, 1 stopped", _case(engine, events, readers=9, stopped=1)),
                Case("1 reader, of what is there", _reading(engine, events)),
            ]
            await interleave(cases, scale.slow_samples, warmup=1)
    return results.document(NAME, [results.summarized("events", "a second", cases, cases[0].name)])


def _case(engine: pyrt.Engine, events: int, *, readers: int, stopped: int) -> Sample:
    """``rate``: events a second until every reader but those that have stopped has all of them."""

    async def sample() -> dict[str, float]:
        streams = [engine.events() for _ in range(readers + stopped)]
        begun = time.monotonic()
        async with trio.open_nursery() as nursery:
            for stream in streams[:readers]:
                nursery.start_soon(_read, stream, events)
            await _write(engine, events)
            written = time.monotonic()
        read = time.monotonic()
        for stream in streams[readers:]:
            await _read(stream, events)
        return {"written": events / (written - begun), "rate": events / (read - begun)}

    return sample


def _reading(engine: pyrt.Engine, events: int) -> Sample:
    """How fast one reads what the journal has already."""

    async def sample() -> dict[str, float]:
        stream = engine.events()
        await _write(engine, events)
        begun = time.monotonic()
        await _read(stream, events)
        return {"rate": events / (time.monotonic() - begun)}

    return sample


async def _write(engine: pyrt.Engine, events: int) -> None:
    event = ContainerSignaled(container="0" * 64, name="bench", image="bench", signal=15)

    def change(transaction: Transaction) -> None:
        for _ in range(_TRANSACTION):
            transaction.emit(event)

    for _ in range(events // _TRANSACTION):
        await engine.commit(change)
        await trio.lowlevel.checkpoint()


async def _read(stream: EventStream, events: int) -> None:
    """Takes them one by one, as most people do; none may be missing."""
    first = stream.cursor
    for _ in range(events):
        event = await anext(stream)
    assert event.seq - first == events, "events are lost"
