"""Numbers as people write them: sizes, shares of a processor, times, pairs. Each refusal says how it is written."""

from __future__ import annotations

import math
import re
from typing import Final

from pyrt.errors import UsageError

# As Docker takes them: multiples of 1024, whether or not an "i" or a "b" follows.
_SIZE: Final = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_SHIFT: Final = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_NUMBER: Final = r"\d{1,12}(?:\.\d{1,9})?"
# A number of seconds, or as Go writes a duration: 1h30m, 1.5s, 300ms.
_TIME: Final = re.compile(rf"{_NUMBER}|(?:{_NUMBER}(?:h|ms|m|s|us|µs|ns)){{1,7}}", re.ASCII)
_PART_OF_TIME: Final = re.compile(rf"({_NUMBER})(h|ms|m|s|us|µs|ns|)", re.ASCII)
_SECONDS: Final = {"": 1.0, "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LARGEST: Final = (1 << 63) - 1


def parse_size(value: int | str, what: str = "size") -> int:
    """Bytes: a number, or a text like "64m", "1.5GiB", "512k" (multiples of 1024)."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise _refuse(value, what, "a number of bytes or a text such as 64m")
    if isinstance(value, int):
        size = value
    else:
        match = _SIZE.fullmatch(value.strip())
        if not match:
            raise _refuse(value, what, "write it as in 64m or 1.5g")
        digits, unit = match.groups()
        shift = _SHIFT[unit.lower()]
        size = int(float(digits) * (1 << shift)) if "." in digits else int(digits) << shift
    if not 0 <= size <= _LARGEST:
        raise _refuse(value, what, "it is from 0 to 2^63 - 1 bytes")
    return size


def parse_cpus(value: float | str) -> float:
    """A number of processors: "0.5" is half the time of one."""
    try:
        cpus = float(value)
    except (TypeError, ValueError):
        cpus = math.nan
    if isinstance(value, bool) or not math.isfinite(cpus) or cpus <= 0:
        raise _refuse(value, "number of processors", "write it as in 1.5")
    return cpus


def parse_duration(value: float | str, *, may_be_none: bool = False) -> float:
    """Seconds: a number, or a text like "1.5", "300ms", "1m30s"; above 0, unless it ``may_be_none``."""
    seconds = _seconds(value) if isinstance(value, str) else value
    if isinstance(value, bool) or not math.isfinite(seconds) or seconds < 0 or (not seconds and not may_be_none):
        raise _refuse(value, "time", "it is a number of seconds above 0")
    return float(seconds)


def _seconds(text: str) -> float:
    if not _TIME.fullmatch(text.strip()):
        raise _refuse(text, "time", "write it as in 1.5, 300ms or 1m30s")
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART_OF_TIME.findall(text))


def parse_count(text: str, what: str) -> int:
    """A whole number, -1 for "no limit"."""
    if not re.fullmatch(r"-1|\d{1,18}", text.strip(), re.ASCII):
        raise _refuse(text, what, "it is a whole number, or -1 for no limit")
    return int(text)


def parse_mode(text: str, what: str = "mode") -> int:
    """Permissions in octal: "1777"."""
    if not re.fullmatch(r"[0-7]{1,5}", text, re.ASCII) or int(text, 8) > 0o7777:
        raise _refuse(text, what, "write it in octal, as in 1777")
    return int(text, 8)


def parse_pair(text: str, what: str) -> tuple[str, str]:
    """NAME=value; without "=" the value is empty."""
    name, _, value = text.partition("=")
    if not name:
        raise _refuse(text, what, "write it as in NAME=value")
    return name, value


def within(value: int, least: int, most: int, what: str) -> int:
    """The number, if it is one from ``least`` to ``most``."""
    if not least <= value <= most:
        raise UsageError(f"{value} is no {what}", hint=f"it is from {least} to {most}")
    return value


def _refuse(value: object, what: str, hint: str) -> UsageError:
    return UsageError(f"{value!r} is no {what}", hint=hint)
