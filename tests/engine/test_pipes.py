"""Standard streams: bounded, never in the way of the writer, and only our ends do not block."""

from __future__ import annotations

import os
import pty
import tty
from typing import TYPE_CHECKING

import pytest
import trio

from pyrt.engine.pipes import PIECE, Capture, Reader, Stdio, Wanted, Writer, feed, resize

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def pipe() -> AsyncIterator[tuple[Reader, Writer]]:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    reader, writer = Reader(reading), Writer(writing)
    yield reader, writer
    reader.close()
    writer.close()


async def test_only_our_ends_do_not_block() -> None:
    stdio = Stdio()
    ours: list[Reader | Writer] = [Writer(stdio.stdin), Reader(stdio.stdout), Reader(stdio.stderr)]
    assert [os.get_blocking(descriptor) for descriptor in stdio.theirs] == [True] * 3
    assert [os.get_blocking(end.fileno()) for end in ours] == [False] * 3
    assert not any(os.get_inheritable(descriptor) for descriptor in stdio.theirs)
    for end in ours:
        end.close()
    stdio.sent()


async def test_without_input_the_container_is_at_its_end_at_once() -> None:
    stdio = Stdio(Wanted(stdin=False))
    assert os.read(stdio.theirs[0], 1) == b""
    stdio.close()


async def test_descriptors_of_the_caller_stay_open() -> None:
    reading, writing = os.pipe()
    stdio = Stdio(Wanted((reading, writing, writing)))
    assert stdio.theirs == (reading, writing, writing)
    stdio.close()
    os.close(reading)
    os.close(writing)


async def test_more_than_a_pipe_holds_goes_through(pipe: tuple[Reader, Writer]) -> None:
    reader, writer = pipe
    data = os.urandom(3 * PIECE + 7)
    capture = Capture(reader, 10 * PIECE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed, writer, data)
        nursery.start_soon(capture.run)
    assert capture.value() == data
    assert capture.lost == 0


async def test_what_is_over_the_limit_is_read_counted_and_thrown_away(pipe: tuple[Reader, Writer]) -> None:
    reader, writer = pipe
    capture = Capture(reader, 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed, writer, b"x" * 999 + b"y" * 500_000)
        nursery.start_soon(capture.run)
    assert capture.value() == b"x" * 999 + b"y"
    assert capture.lost == 499_999


async def test_input_that_nobody_wants_is_no_error(pipe: tuple[Reader, Writer]) -> None:
    reader, writer = pipe
    reader.close()
    await feed(writer, b"x" * 1_000_000)
    with pytest.raises(trio.ClosedResourceError):
        await writer.send_all(b"x")


async def test_a_writer_says_that_nobody_reads(pipe: tuple[Reader, Writer]) -> None:
    reader, writer = pipe
    reader.close()
    with pytest.raises(trio.BrokenResourceError):
        await writer.send_all(b"x")


async def test_a_drain_takes_what_is_there_though_somebody_holds_the_pipe(pipe: tuple[Reader, Writer]) -> None:
    reader, writer = pipe
    await writer.send_all(b"last words")
    capture = Capture(reader, 100)
    capture.drain()
    assert capture.value() == b"last words"
    assert not capture.ended


async def test_a_drain_takes_what_a_terminal_has_not_counted_yet() -> None:
    """What is written to one gets through to its reader in the background, or when that reads."""
    for _ in range(20):
        master, slave = pty.openpty()
        tty.setraw(slave)
        reader = Reader(master)
        os.write(slave, b"x" * 8_000)
        capture = Capture(reader, 1 << 20)
        capture.drain()
        assert (len(capture.value()), capture.ended) == (8_000, False)
        os.close(slave)
        capture.drain()
        assert capture.ended
        reader.close()


async def test_closing_wakes_who_waits(pipe: tuple[Reader, Writer]) -> None:
    reader, _ = pipe
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await reader.receive_some()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await reader.aclose()


async def test_a_stream_that_is_not_there_is_at_its_end() -> None:
    assert [piece async for piece in Reader(-1)] == []


async def test_a_terminal_ends_with_its_last_process() -> None:
    master, slave = pty.openpty()
    stdio = Stdio()
    stdio.use_terminal(master)
    reader, writer = Reader(stdio.stdout), Writer(stdio.stdin)
    os.write(slave, b"hello")
    assert await reader.receive_some() == b"hello"
    resize(master, 40, 100)
    assert os.get_terminal_size(slave) == (100, 40)
    await writer.send_all(b"line\n")
    assert os.read(slave, 99) == b"line\n"
    os.close(slave)
    while piece := await reader.receive_some():
        assert piece == b"line\r\n"  # The echo.
    reader.close()
    writer.close()
    stdio.sent()
