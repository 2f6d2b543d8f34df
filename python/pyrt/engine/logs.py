"""The logs of detached containers, read while their keepers write and rotate them.

A reader holds a file open, so that a rotation takes nothing from it; when that is read to its end and has been
renamed, the next is the one that comes before it by name. Nobody is told of readers and no keeper waits for one: who
falls behind by all the files that are kept reads on at the oldest that is left.

::

    log.2 --- read to its end ---> log.1 ---> log  <--- keeper
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, final

import trio

from pyrt import _native

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE: Final = 256 * 1024
_PREFIX: Final = len("2016-10-06T00:17:09.669794202Z stdout F ")
_LOOK_AGAIN: Final = 0.5
"""Seconds after which a follower looks whether the container still runs, if nothing has told it."""


class LogText(NamedTuple):
    """Some of what a container wrote: at least one byte, as often as it suits."""

    stderr: bool
    data: bytes


class LogOptions(NamedTuple):
    """``since`` and ``until`` are Unix times in nanoseconds, 0 for none; ``tail`` lines from the end, None for all.

    ``times``: each line has its time before it; ``details``: then this.
    """

    follow: bool = False
    since: int = 0
    until: int = 0
    tail: int | None = None
    times: bool = False
    details: str = ""


@final
class LogStream:
    """A container's log from where it is opened. Iterate over it, and close it.

    ``is_over`` says whether nothing more will be written.
    """

    def __init__(self, folder: str, options: LogOptions, is_over: Callable[[], bool]) -> None:
        self._folder = folder
        self._options = options
        self._is_over = is_over
        since, until = (log_time(at) if at else "" for at in (options.since, options.until))
        self._reader = _native.LogReader(since=since, until=until, times=options.times, details=options.details)
        self._ready: list[LogText] = []
        self._open_line: bool | None = None
        self._watch = _native.watch_folder(folder) if options.follow else -1
        try:
            self._files = _open_files(folder)
            if options.tail is not None:
                _skip_to_tail(self._files, options.tail)
        except BaseException:
            self.close_watch()
            raise

    def close_watch(self) -> None:
        watch, self._watch = self._watch, -1
        if watch >= 0:
            os.close(watch)

    def close(self) -> None:
        """Closes its files."""
        self.close_watch()
        while self._files:
            os.close(self._files.pop())

    def __aiter__(self) -> LogStream:
        return self

    async def __anext__(self) -> LogText:
        await trio.lowlevel.checkpoint()
        while not self._ready:
            if self._reader.done:
                raise StopAsyncIteration
            # Looked at first: what was written before the end is found by the read that follows.
            over = not self._options.follow or self._is_over()
            piece = self._read()
            self._ready += [LogText(*text) for text in self._reader.feed(piece)]
            if not piece:
                if over:
                    raise StopAsyncIteration
                await self._changed()
        text = self._ready.pop(0)
        self._open_line = text.stderr if text.data[-1:] != b"\n" else None
        return text

    def _read(self) -> bytes:
        """The next piece; b"" if there is none just now."""
        while True:
            if self._files and (piece := os.read(self._files[0], PIECE)):
                return piece
            if len(self._files) < 2 and not self._find_newer():
                return b""
            # It has been renamed: was something written after our read and before that?
            if self._files and (piece := os.read(self._files[0], PIECE)):
                return piece
            if len(self._files) > 1:
                os.close(self._files.pop(0))

    def _find_newer(self) -> bool:
        """Opens the files that have come after the one that is being read."""
        if not self._files:
            self._files = _open_files(self._folder)
            return bool(self._files)
        current = os.fstat(self._files[0]).st_ino
        found = _open_files(self._folder)
        numbers = [os.fstat(file).st_ino for file in found]
        known = numbers.index(current) + 1 if current in numbers else 0
        if not known and self._open_line is not None:
            # Files were lost that we have not read: a line that was begun has no end.
            self._ready.append(LogText(self._open_line, b"\n"))
        for file in found[:known]:
            os.close(file)
        self._files += found[known:]
        return len(self._files) > 1

    async def _changed(self) -> None:
        with trio.move_on_after(_LOOK_AGAIN):
            await trio.lowlevel.wait_readable(self._watch)
        try:
            os.read(self._watch, 64 * 1024)
        except BlockingIOError:
            pass


def _open_files(folder: str) -> list[int]:
    """The files of a log, the oldest first."""
    while True:
        newest = _number(folder)
        files = _look(folder)
        if _number(folder) == newest:
            return files
        # A rotation came in between: what was opened may be in any order.
        for file in files:
            os.close(file)


def _number(folder: str) -> int | None:
    try:
        return os.stat(_name(folder, 0)).st_ino
    except FileNotFoundError:
        return None


def _look(folder: str) -> list[int]:
    """From the newest to the oldest: one that a rotation moves on meanwhile shows twice."""
    files: dict[int, int] = {}
    count = 0
    # Between two steps of a rotation one number is nobody's.
    while os.path.exists(_name(folder, count)) or os.path.exists(_name(folder, count + 1)):
        with suppress(FileNotFoundError):
            file = os.open(_name(folder, count), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            if (number := os.fstat(file).st_ino) in files:
                os.close(file)
            else:
                files[number] = file
        count += 1
    return [*files.values()][::-1]


def _name(folder: str, count: int) -> str:
    return f"{folder}/log.{count}" if count else f"{folder}/log"


def _skip_to_tail(files: list[int], lines: int) -> None:
    """Closes the files, and passes over the beginning of the first that is left, so that ``lines`` lines remain."""
    for index in range(len(files) - 1, -1, -1):
        start, lines = _start_of_tail(files[index], lines)
        os.lseek(files[index], start, os.SEEK_SET)
        if lines <= 0:
            for file in files[:index]:
                os.close(file)
            del files[:index]
            return


def _start_of_tail(file: int, lines: int) -> tuple[int, int]:
    """Where the last so many lines of a file begin, and how many are missing. What is no whole line counts with the
    one that it belongs to."""
    end = os.fstat(file).st_size
    if lines <= 0:
        return end, 0
    data = b""
    start = end
    while start > 0:
        start = max(0, start - PIECE)
        data = os.pread(file, min(PIECE, end - start), start) + data
        end = start
        kept = _count_back(data, lines, at_start=start == 0)
        if kept is not None:
            return start + kept, 0
    whole = sum(line[_PREFIX - 2 : _PREFIX - 1] == b"F" for line in data.splitlines())
    return 0, lines - whole


def _count_back(data: bytes, lines: int, *, at_start: bool) -> int | None:
    """Where in ``data`` the last so many lines begin; None if they begin before it."""
    found = 0
    end = len(data)
    while end > 0:
        start = data.rfind(b"\n", 0, end - 1) + 1
        if start == 0 and not at_start:
            return None
        if data[start + _PREFIX - 2 : start + _PREFIX - 1] == b"F" or end == len(data):
            found += 1
            if found > lines:
                return end
        end = start
    return 0 if found == lines else None


def log_time(at: int) -> str:
    """A time as logs have it: UTC, nine digits after the point."""
    seconds, nanoseconds = divmod(at, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"
