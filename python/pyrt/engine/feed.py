"""Who listens: any number of readers of the events, none of which can hold anybody up.

A reader is a cursor, nothing else. What it has not seen yet it takes from a ring of the latest events, or, if it
has fallen behind the ring, from the journal. So a slow reader costs no memory and is never waited for, and
the journal's order is the only one there is: no gap and no duplicate, also across engines and restarts.

::

    journal --commit--> ring [ seq 901 ... 5000 ] --slice--> reader at 4990
       |                                                     reader at 4200
       +---------------- SELECT seq > 17 ------------------> reader at 17
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import trio

from pyrt.engine.events import Gap
from pyrt.errors import EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyrt.engine.events import AnyEvent
    from pyrt.engine.journal import Journal

RING: Final = 4096
BATCH: Final = 512
"""Events that are read from the journal at once: half a millisecond."""
POLL: Final = 0.05
"""Seconds between two looks whether another process has written, while somebody waits. A look costs 2 us."""


class Feed:
    """Passes a journal's events on to whoever reads them in this process."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._end: int | None = None
        self._waiting = trio.lowlevel.ParkingLot()
        self._ring: list[AnyEvent] = []
        self._version = journal.changed_by_others()
        journal.published = self.publish

    def publish(self, events: list[AnyEvent]) -> None:
        """Takes newly committed events and wakes who waits. Never blocks, whoever reads or does not."""
        ring = self._ring
        if ring and ring[-1].seq + 1 != events[0].seq:
            ring.clear()  # Another process has written in between; the journal knows what.
        ring.extend(events)
        if len(ring) > 2 * RING:
            del ring[:-RING]
        if self._waiting:
            self._waiting.unpark_all()

    def close(self) -> None:
        """Ends the readers that follow, once they have read all there is. Before the journal is closed."""
        self._end = self.journal.span()[1]
        self._waiting.unpark_all()

    @property
    def closed(self) -> bool:
        return self._end is not None

    def after(self, seq: int) -> list[AnyEvent]:
        """Some of the events that come after ``seq``, in order; none if there are none yet."""
        ring = self._ring
        if ring and seq + 1 >= ring[0].seq and seq < ring[-1].seq:
            return ring[seq + 1 - ring[0].seq :][:RING]
        if self._end is not None:
            return self._after_the_end(seq, self._end)
        # At the ring's end nothing is new, unless another process has written.
        if ring and seq == ring[-1].seq and not self._others_wrote():
            return []
        return self.journal.events_after(seq, BATCH)

    async def wait(self) -> None:
        """Returns when there may be something new."""
        with trio.move_on_after(POLL):
            await self._waiting.park()

    def _others_wrote(self) -> bool:
        version = self.journal.changed_by_others()
        if version == self._version:
            return False
        self._version = version
        self._ring.clear()
        return True

    def _after_the_end(self, seq: int, end: int) -> list[AnyEvent]:
        if seq < end:
            raise EngineError(
                f"the engine was closed before events {seq + 1} to {end} were read", hint=f"go on with since={seq}"
            )
        return []


@final
class EventStream:
    """Events in order; iterate over it, or take them in batches. Need not be closed.

    ``cursor`` is the sequence number of the last event that was handed out: give it to ``events(since=...)``, in
    this program or another, to go on after it.
    """

    def __init__(self, feed: Feed, since: int | None, *, follow: bool = True) -> None:
        head = feed.journal.span()[1]
        if since is not None and not 0 <= since <= head:
            raise UsageError(
                f"there is no event {since}: the newest is {head}", hint="a cursor of another state folder, perhaps"
            )
        self.cursor = head if since is None else since
        self._feed = feed
        self._until = None if follow else head
        self._ready: list[AnyEvent] = []

    def __aiter__(self) -> AsyncIterator[AnyEvent]:
        return self

    async def __anext__(self) -> AnyEvent:
        if not self._ready:
            self._ready = await self._next()
            self._ready.reverse()
            if not self._ready:
                raise StopAsyncIteration
        event = self._ready.pop()
        self.cursor = event.seq
        return event

    async def receive_batch(self) -> list[AnyEvent]:
        """All events that are there, but at most some thousands; waits for one. An empty list is the end."""
        batch = self._ready[::-1] or await self._next()
        self._ready = []
        if batch:
            self.cursor = batch[-1].seq
        return batch

    async def _next(self) -> list[AnyEvent]:
        await trio.lowlevel.checkpoint()
        while True:
            batch = self._take()
            if batch or self._until is not None or self._feed.closed:
                return batch
            await self._feed.wait()

    def _take(self) -> list[AnyEvent]:
        if self._until is not None and self.cursor >= self._until:
            return []
        batch = self._feed.after(self.cursor)
        if self._until is not None:
            batch = [event for event in batch if event.seq <= self._until]
        if batch and batch[0].seq != self.cursor + 1:
            # Either numbers that were never given, after a power loss, or events that are no longer kept.
            oldest = self._feed.journal.span()[0]
            missed = oldest - 1 - self.cursor
            if missed > 0:
                return [Gap(seq=oldest - 1, missed=missed), *batch]
        return batch
