"""Sizes, ages and ids as people read them, in the forms that Docker's users know."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from pyrt.errors import UsageError
from pyrt.images import host
from pyrt.images.reference import Reference

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")
_BINARY_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SHORT_ID: Final = 12
_SECOND: Final = 1_000_000_000


def size(count: float, *, binary: bool = False) -> str:
    """Bytes with three digits: "72.8MB", or with powers of 1024 "69.4MiB"."""
    units, step = (_BINARY_UNITS, 1024.0) if binary else (_UNITS, 1000.0)
    value = float(count)
    for unit in units:
        # What would be shown as 1000 belongs to the next unit.
        if value < step - 0.5 or unit == units[-1]:
            break
        value /= step
    return f"{value:.3g}{unit}" if value < step - 0.5 else f"{value:.0f}{unit}"


def span(seconds: float) -> str:
    """How long: "About a minute", "3 hours", as Docker rounds it."""
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return _many(int(seconds), "second")
    minutes = int(seconds // 60)
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = hours // 24
    for most, length, word in ((14, 1, "day"), (60, 7, "week"), (730, 30, "month")):
        if days < most:
            return _many(days // length, word)
    return _many(days // 365, "year")


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def ago(moment: datetime | None, now: datetime) -> str:
    """How long since a moment; "N/A" for none."""
    return f"{span((now - moment).total_seconds())} ago" if moment else "N/A"


def since(nanoseconds: int, now: int) -> str:
    """The same for Unix times in nanoseconds; "N/A" for 0."""
    return f"{span((now - nanoseconds) / _SECOND)} ago" if nanoseconds else "N/A"


def moment_of(nanoseconds: int) -> datetime | None:
    """Unix time in nanoseconds as a moment; None for 0."""
    return datetime.fromtimestamp(nanoseconds / _SECOND, UTC) if nanoseconds else None


def stamp(nanoseconds: int) -> str:
    """RFC 3339 with nanoseconds, in UTC; Docker's "no time" for 0."""
    if not nanoseconds:
        return "0001-01-01T00:00:00Z"
    seconds, rest = divmod(nanoseconds, _SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def clock(moment: datetime | None) -> str:
    """For columns: "2026-11-24 11:20:04 +0000 UTC"."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} +0000 UTC" if moment else "N/A"


def short(identifier: str) -> str:
    """The part of an id that people handle."""
    return identifier.removeprefix("sha256:")[:_SHORT_ID]


def image(name: str) -> str:
    """An image's name as people write it: "debian:12", "box:latest"; what is no name as it is."""
    if name == host.NAME:
        return name
    try:
        return Reference.parse(name).with_default_tag().familiar()
    except UsageError:
        return name


def took(nanoseconds: float) -> str:
    """A short time: "48us", "1.9ms", "2.1s"."""
    for unit, length in (("s", _SECOND), ("ms", 1_000_000)):
        if nanoseconds >= length:
            return f"{nanoseconds / length:.3g}{unit}"
    return f"{nanoseconds / 1000:.0f}us"
