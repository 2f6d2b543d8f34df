"""Signals by name."""

from __future__ import annotations

import pytest

from pyrt.errors import UsageError
from pyrt.runtime.signals import parse_signal


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("15", 15),
        (9, 9),
        ("SIGQUIT", 3),
        ("SIGWINCH", 28),
        ("SIGRTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMAX-1", 63),
        ("rtmax", 64),
        ("64", 64),
        ("SIGRTMIN+30", 64),
    ],
)
def test_signals(text: str | int, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "65",
        "-9",
        "SIG",
        "SIGNOTHING",
        "RTMIN+31",
        "RTMAX-31",
        "RTMIN-1",
        "\u0661\u0665",
        "9" * 400,
        "SIGSIGTERM",
    ],
)
def test_no_signals(text: str) -> None:
    with pytest.raises(UsageError, match="is no signal"):
        parse_signal(text)
