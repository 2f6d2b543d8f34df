"""What runs on when its user goes, tied to him until then: what it writes comes to him, what is typed goes to it, and
the keys that Docker has for it untie the two. A detached container's output comes from its log."""

from __future__ import annotations

import os
import pty
import tty
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from pyrt.cli.attached import discard
from pyrt.cli.parser import boolean
from pyrt.engine.pipes import Reader, Writer, resize
from pyrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from pyrt.cli.console import Console
    from pyrt.cli.parser import Parser
    from pyrt.engine.attaching import Input
    from pyrt.engine.container import Container, Execution
    from pyrt.engine.engine import Engine
    from pyrt.engine.logs import LogStream
    from pyrt.engine.record import Record
    from pyrt.engine.results import ExitStatus

USUAL_KEYS: Final = "ctrl-p,ctrl-q"


def add_tie_options(parser: Parser) -> None:
    """--detach-keys and --sig-proxy."""
    parser.add_argument("--detach-keys", default=USUAL_KEYS, metavar="KEYS", help=f"leave it running ({USUAL_KEYS})")
    parser.add_argument("--sig-proxy", type=boolean, nargs="?", const=True, default=True, metavar="BOOL",
                        help="pass signals on (true)")  # fmt: skip


def parse_keys(text: str) -> bytes:
    """The bytes of "ctrl-p,ctrl-q" or "a,b"."""
    keys = bytearray()
    for word in text.split(","):
        name, letter = word[:5], word[5:]
        if name == "ctrl-" and len(letter) == 1 and (letter.isalpha() or letter in "@[\\]^_"):
            keys.append(ord(letter.upper()) & 0x1F)
        elif len(word) == 1 and word.isascii():
            keys += word.encode()
        else:
            raise UsageError(f"--detach-keys {text}: {word!r} is no key", hint="such as ctrl-p,ctrl-q")
    return bytes(keys)


async def tie(
    console: Console,
    engine: Engine,
    record: Record,
    stream: LogStream,
    way_in: Input | None,
    *,
    keys: str,
    forwards_signals: bool,
    running: Container | None = None,
) -> ExitStatus | None:
    """Until the container has ended: how it did; None if the user has untied himself first.

    ``stream`` is what it writes, ``way_in`` where what is typed goes. Both are closed. ``running`` knows its end also
    where it is removed by then.
    """
    with console.signals_to(partial(engine.kill, record.id)) if forwards_signals else nullcontext():
        try:
            if way_in is not None and way_in.terminal:
                written = (text.data async for text in stream)
                left = await _through_terminal(console, written, way_in.take(), parse_keys(keys))
            else:
                left = False
                await _through_pipes(console, stream, way_in, once=bool(record.lasting and record.lasting.stdin_once))
        finally:
            stream.close()
            if way_in is not None:
                way_in.close()
        status = None if left else await (running.wait() if running else engine.wait(record.id))
    await console.settle()
    return status


async def tie_execution(console: Console, engine: Engine, execution: Execution, keys: str) -> ExitStatus | None:
    """The same with a process that has joined a container, on a terminal. It ends with its engine."""
    with console.signals_to(execution.kill):
        way_in = os.dup(execution.stdout.fileno())
        left = await _through_terminal(console, execution.stdout, way_in, parse_keys(keys))
        if left:
            engine.in_background(_leave_unheard, execution)
        status = None if left else await execution.wait()
    await console.settle()
    return status


async def _leave_unheard(execution: Execution) -> None:
    """Reads on until it has ended: it is not to wait for somebody who has left."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(discard, execution.stdout)
        await execution.over()
        nursery.cancel_scope.cancel()
    execution.close_streams()


async def _through_pipes(console: Console, stream: LogStream, way_in: Input | None, *, once: bool) -> None:
    ends: dict[str, int] = {}
    writers = []
    for name in ("output", "error"):
        ends[name], ours = os.pipe2(os.O_CLOEXEC)
        writers.append(Writer(ours))
    if way_in is not None and way_in.descriptor >= 0:
        ends["input"] = way_in.take()
    await console.relay(**ends)
    if way_in is not None and once:
        way_in.close_for_others()
    try:
        async for text in stream:
            # Who has closed one of the two may still want the other.
            with suppress(trio.BrokenResourceError):
                await writers[text.stderr].send_all(text.data)
    finally:
        for writer in writers:
            writer.close()


async def _through_terminal(
    console: Console, written: AsyncIterable[bytes | bytearray], way_in: int, keys: bytes
) -> bool:
    """Between the user's terminal and the container's is another, of which we are the far end: so what the container
    writes can come from its log, and keys can be looked at. True if they were the ones to leave by. ``way_in`` is the
    master of the container's, and is closed."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    left = False

    window = _Window(slave, os.dup(way_in))

    async def type_in() -> None:
        nonlocal left
        target = Writer(way_in)
        try:
            left = await _pass_keys(Reader(os.dup(slave)), target, keys, window)
        finally:
            target.close()
        nursery.cancel_scope.cancel()

    screen = Writer(os.dup(slave))
    try:
        async with trio.open_nursery() as nursery:
            await console.relay_terminal(master, keys=True)
            nursery.start_soon(_follow_window, console, window)
            nursery.start_soon(type_in)
            async for piece in written:
                await screen.send_all(piece)
            nursery.cancel_scope.cancel()
    finally:
        screen.close()
        window.close()
        os.close(slave)
    return left


class _Window:
    """Gives the container's terminal the size of the user's, which the client gives to ours."""

    def __init__(self, ours: int, theirs: int) -> None:
        self._ours = ours
        self._theirs = theirs
        self._size: os.terminal_size | None = None

    def fit(self) -> None:
        now = os.get_terminal_size(self._ours)
        if now != self._size and now.lines:
            self._size = now
            with suppress(OSError):  # It has just ended.
                resize(self._theirs, now.lines, now.columns)

    def close(self) -> None:
        os.close(self._theirs)


async def _follow_window(console: Console, window: _Window) -> None:
    while True:
        window.fit()
        await console.resized()


async def _pass_keys(source: Reader, target: Writer, keys: bytes, window: _Window) -> bool:
    """Copies what is typed; True if ``keys`` came, which are not passed on."""
    held = b""
    try:
        while typed := await source.receive_some():
            # Who types after a change of the size means the new one.
            window.fit()
            passed = bytearray()
            for key in typed:
                held += bytes([key])
                if held == keys:
                    await target.send_all(passed)
                    return True
                while held and not keys.startswith(held):
                    passed.append(held[0])
                    held = held[1:]
            if passed:
                await target.send_all(passed)
    except trio.BrokenResourceError:
        await trio.sleep_forever()  # It has just ended: its last output is still to come.
    finally:
        source.close()
    return False
