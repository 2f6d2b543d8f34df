"""Numbers as people write them."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrt.errors import UsageError
from pyrt.runtime.words import parse_count, parse_cpus, parse_duration, parse_mode, parse_pair, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (4096, 4096),
        ("4096", 4096),
        ("64m", 64 << 20),
        ("64M", 64 << 20),
        ("64mb", 64 << 20),
        ("64MiB", 64 << 20),
        ("1.5g", 3 << 29),
        ("2 k", 2048),
        ("7b", 7),
        ("1t", 1 << 40),
        (" 1k ", 1024),
    ],
)
def test_sizes(text: int | str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "m", "-1", "64x", "1e6", "0x10", "1_000", "٣m", "1..5m", "9" * 19, "9" * 400, "nan", -1, 1 << 63, True]
)
def test_no_sizes(text: int | str) -> None:
    with pytest.raises(UsageError, match="is no memory limit"):
        parse_size(text, "memory limit")


@given(st.integers(0, (1 << 63) - 1))
def test_bytes_survive(size: int) -> None:
    assert parse_size(str(size)) == parse_size(size) == size


@given(st.text(max_size=30))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    for parse in (parse_size, parse_cpus, parse_duration, parse_mode):
        with contextlib.suppress(UsageError):
            assert parse(text) >= 0


def test_shares_of_a_processor() -> None:
    assert [parse_cpus(value) for value in ("0.5", ".5", 2, "1e0")] == [0.5, 0.5, 2, 1]
    for text in ("", "0", "-1", "nan", "inf", "two", math.nan, True):
        with pytest.raises(UsageError, match="number of processors"):
            parse_cpus(text)


def test_times() -> None:
    assert [parse_duration(value) for value in ("1.5", "300ms", "2m", "1h", 3)] == [1.5, 0.3, 120, 3600, 3]
    # As Go writes them.
    assert [parse_duration(value) for value in ("1m30s", "1h0m0.5s", "500us")] == [90, 3600.5, 0.0005]
    assert [parse_duration(value, may_be_none=True) for value in ("0s", "0", 0)] == [0, 0, 0]
    for text in ("", "0", "-1", "nan", "1d", "1 s", "1m30", "m", math.inf, 0):
        with pytest.raises(UsageError, match="is no time"):
            parse_duration(text)


def test_counts_modes_and_pairs() -> None:
    assert [parse_count(text, "count") for text in ("0", "-1", "1024")] == [0, -1, 1024]
    assert [parse_mode(text) for text in ("1777", "0644")] == [0o1777, 0o644]
    assert [parse_pair(text, "label") for text in ("a=b=c", "a", "a=")] == [("a", "b=c"), ("a", ""), ("a", "")]
    for text in ("-2", "1.0", "many", ""):
        with pytest.raises(UsageError, match="is no count"):
            parse_count(text, "count")
    for text in ("8", "17777", "", "-1"):
        with pytest.raises(UsageError, match="is no mode"):
            parse_mode(text)
    with pytest.raises(UsageError, match="is no label"):
        parse_pair("=x", "label")
