"""Moments as people write them: --since, --until and the filter until."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Final, NamedTuple

from pyrt.errors import UsageError

SECOND: Final = 1_000_000_000
# No journal gets this far, and no clock has been before it since 2001.
_FIRST_UNIX_TIME: Final = 1_000_000_000
_SPAN: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_FRACTION: Final = re.compile(r"(?<=:\d\d)[.,](\d+)")


class Moment(NamedTuple):
    """A place among the events: after a sequence number, or a time in nanoseconds."""

    seq: int | None = None
    time: int | None = None


def parse_moment(text: str) -> Moment:
    """What --since and --until take."""
    if text.isdigit():
        number = int(text)
        return Moment(time=number * SECOND) if number >= _FIRST_UNIX_TIME else Moment(seq=number)
    if match := _SPAN.fullmatch(text):
        hours, minutes, seconds = (float(part or 0) for part in match.groups())
        return Moment(time=time.time_ns() - int((hours * 3600 + minutes * 60 + seconds) * SECOND))
    # A float would not hold today's nanoseconds.
    whole, fraction = _split(text)
    try:
        moment = datetime.fromisoformat(whole)
    except ValueError:
        raise UsageError(
            f"{text} is no moment", hint="a sequence number, a time like 2026-11-24T12:00:00Z, or an age like 10m"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return Moment(time=int(moment.timestamp()) * SECOND + fraction)


def _split(text: str) -> tuple[str, int]:
    """A time without its fraction of a second, and that in nanoseconds."""
    match = _FRACTION.search(text)
    if not match:
        return text, 0
    return text[: match.start()] + text[match.end() :], int(match[1].ljust(9, "0")[:9])
