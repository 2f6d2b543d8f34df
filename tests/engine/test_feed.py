"""Readers of events: every one exactly once and in order, however slow they are and whoever writes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pyrt.engine.events import Gap
from pyrt.engine.feed import RING, EventStream, Feed
from pyrt.engine.journal import Journal
from pyrt.errors import EngineError, UsageError
from tests.engine.journals import tell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyrt.engine.events import AnyEvent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    opened = Journal(path)
    yield opened
    opened.close()


@pytest.fixture
def feed(journal: Journal) -> Feed:
    return Feed(journal)


async def take(stream: EventStream, count: int) -> list[int]:
    """The sequence numbers of the next ``count`` events."""
    return [(await anext(stream)).seq for _ in range(count)]


async def test_a_reader_sees_what_was_and_what_comes(journal: Journal, feed: Feed) -> None:
    tell(journal, 3)
    stream = EventStream(feed, 0)
    assert await take(stream, 3) == [1, 2, 3]
    tell(journal, 2)
    assert await take(stream, 2) == [4, 5]


async def test_without_a_cursor_it_sees_what_comes(journal: Journal, feed: Feed) -> None:
    tell(journal, 3)
    stream = EventStream(feed, None)
    tell(journal, 1)
    assert await take(stream, 1) == [4]


async def test_one_that_does_not_follow_ends(journal: Journal, feed: Feed) -> None:
    tell(journal, 700)
    stream = EventStream(feed, 5, follow=False)
    tell(journal, 10)
    assert [event.seq async for event in stream] == list(range(6, 701))
    assert await EventStream(feed, 710, follow=False).receive_batch() == []


async def test_a_waiting_reader_is_woken(journal: Journal, feed: Feed, autojump_clock: trio.testing.MockClock) -> None:
    stream = EventStream(feed, None)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await take(stream, 1) == [1]

        nursery.start_soon(read)
        await trio.lowlevel.checkpoint()
        tell(journal, 1)


async def test_a_reader_that_slept_reads_on_from_the_journal(journal: Journal, feed: Feed) -> None:
    stream = EventStream(feed, 0)
    total = 4 * RING
    for _ in range(total // 512):
        tell(journal, 512)
    assert len(feed._ring) <= 2 * RING
    assert await take(stream, total) == list(range(1, total + 1))


async def test_batches_and_single_events_can_be_mixed(journal: Journal, feed: Feed) -> None:
    tell(journal, 1000)
    stream = EventStream(feed, 0)
    seen = await take(stream, 3)
    while stream.cursor < 1000:
        seen += [event.seq for event in await stream.receive_batch()]
        assert stream.cursor == seen[-1]
    assert seen == list(range(1, 1001))


async def test_a_cursor_goes_on_in_another_engine(journal: Journal, feed: Feed, path: Path) -> None:
    tell(journal, 10)
    first = EventStream(feed, 0)
    seen = await take(first, 4)
    other = Journal(path)
    second = EventStream(Feed(other), first.cursor)
    seen += await take(second, 6)
    assert seen == list(range(1, 11))
    other.close()


async def test_what_another_process_writes_is_seen_in_order(
    journal: Journal, feed: Feed, path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    other = Journal(path)
    stream = EventStream(feed, 0)
    tell(journal, 2)
    assert await take(stream, 2) == [1, 2]
    tell(other, 2)
    tell(journal, 1)
    tell(other, 3)
    assert await take(stream, 6) == [3, 4, 5, 6, 7, 8]
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await take(stream, 1) == [9]

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        tell(other, 1)
    other.close()


async def test_what_is_no_longer_kept_is_told_as_a_gap(path: Path) -> None:
    journal = Journal(path, kept=100)
    stream = EventStream(Feed(journal), 0)
    for _ in range(10):
        tell(journal, 100)
    oldest, newest = journal.span()
    late = EventStream(Feed(journal), 10)
    assert await anext(late) == Gap(seq=oldest - 1, missed=oldest - 1 - 10)
    assert await take(late, newest - oldest + 1) == list(range(oldest, newest + 1))
    assert await take(stream, 3) == [1, 2, 3]  # The ring of this process still has them.
    journal.close()


async def test_numbers_that_were_never_given_are_no_gap(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    tell(journal, 3)
    journal.close()
    monkeypatch.setattr("pyrt.engine.journal._boot", lambda: "another boot")
    journal = Journal(path)
    tell(journal, 1)
    events = [event async for event in EventStream(Feed(journal), 0, follow=False)]
    assert not any(isinstance(event, Gap) for event in events)
    assert len(events) == 4
    journal.close()


@pytest.mark.parametrize("since", [-1, 1, 10**9])
async def test_a_cursor_of_another_journal_is_refused(feed: Feed, since: int) -> None:
    with pytest.raises(UsageError):
        EventStream(feed, since)


async def test_closing_ends_the_readers_after_the_last_event(journal: Journal, feed: Feed) -> None:
    stream = EventStream(feed, 0)
    tell(journal, 3)
    feed.close()
    assert [event.seq async for event in stream] == [1, 2, 3]


async def test_closing_never_cuts_a_reader_short_in_silence(journal: Journal, feed: Feed) -> None:
    stream = EventStream(feed, 0)
    for _ in range(100):
        tell(journal, 512)
    feed.close()
    with pytest.raises(EngineError, match="since=0"):
        await anext(stream)


async def test_a_reader_that_never_reads_holds_nobody_up(journal: Journal, feed: Feed) -> None:
    readers = [EventStream(feed, 0) for _ in range(10)]
    before = time.perf_counter()
    for _ in range(1000):
        tell(journal, 1)
    # No timed test: two orders of magnitude above what it takes.
    assert time.perf_counter() - before < 10
    assert all(reader.cursor == 0 for reader in readers)


async def test_a_hundred_readers_each_see_all(journal: Journal, feed: Feed) -> None:
    seen: list[list[AnyEvent]] = [[] for _ in range(100)]

    async def read(into: list[AnyEvent]) -> None:
        stream = EventStream(feed, 0)
        while len(into) < 50:
            into += await stream.receive_batch()

    async with trio.open_nursery() as nursery:
        for into in seen:
            nursery.start_soon(read, into)
        for _ in range(50):
            tell(journal, 1)
            await trio.lowlevel.checkpoint()
    assert all(into == seen[0] for into in seen)
    assert [event.seq for event in seen[0]] == list(range(1, 51))
