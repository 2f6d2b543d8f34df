"""Signals by name, as images and people write them."""

from __future__ import annotations

import re
import signal
from typing import Final

from pyrt.errors import UsageError

# The C library's own first and last: the kernel's 32 and 33 are its threads'.
_FIRST_REAL_TIME: Final = 34
_LAST_REAL_TIME: Final = 64
_NAMES: Final = {item.name.removeprefix("SIG"): int(item) for item in signal.Signals} | {
    "IOT": 6,
    "POLL": 29,
    "CLD": 17,
    "STKFLT": 16,
    "RTMIN": _FIRST_REAL_TIME,
    "RTMAX": _LAST_REAL_TIME,
}
_REAL_TIME: Final = re.compile(r"RTM(IN\+|AX-)(\d{1,2})", re.ASCII)


def parse_signal(text: str | int) -> int:
    """The number of "SIGTERM", "term", "15", "SIGRTMIN+3"."""
    name = str(text).strip().upper().removeprefix("SIG")
    number = _NAMES.get(name, 0)
    if name.isascii() and name.isdigit() and len(name) < 4:
        number = int(name)
    elif match := _REAL_TIME.fullmatch(name):
        offset = int(match[2])
        number = _FIRST_REAL_TIME + offset if match[1] == "IN+" else _LAST_REAL_TIME - offset
        number = number if _FIRST_REAL_TIME <= number <= _LAST_REAL_TIME else 0
    if not 1 <= number <= _LAST_REAL_TIME:
        raise UsageError(f"{text!r} is no signal", hint="write it as in SIGTERM, 15 or SIGRTMIN+3")
    return number
