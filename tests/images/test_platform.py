"""Platforms: spellings, and which image of an index a machine gets."""

from __future__ import annotations

import platform as python_platform

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrt.errors import UsageError
from pyrt.images.platform import Platform, choose, fits, host


def of(text: str) -> Platform:
    return Platform.parse(text)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/AMD64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/5", "linux/arm/v5"),
        ("arm64", "linux/arm64"),
        ("riscv64", "linux/riscv64"),
        ("linux/i686", "linux/386"),
        ("macos/arm64", "darwin/arm64"),
        ("linux/loongarch64", "linux/loong64"),
        ("linux/mycpu/fast", "linux/mycpu/fast"),
    ],
)
def test_spellings_become_normal(text: str, normal: str) -> None:
    assert str(of(text)) == normal
    assert of(normal) == of(text)


def test_a_system_alone_means_this_machine() -> None:
    assert of("linux").architecture == host().architecture
    assert of("windows(10.0.20348)/amd64").describe() == "windows/amd64 10.0.20348"


@pytest.mark.parametrize("text", ["", "/", "linux/", "linux/amd64/v1/x", "bogus", "linux/a b", "linux(", "a" * 100])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a platform"):
        of(text)


def test_this_machine_is_known() -> None:
    assert host().os == "linux"
    if python_platform.machine() == "x86_64":
        assert host().architecture == "amd64"
        assert host().variant in ("", "v2", "v3", "v4")


@pytest.mark.parametrize(
    ("offered", "wanted", "expected"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", 1),
        (["windows/amd64", "linux/s390x"], "linux/amd64", None),
        # The highest level that the processor has, and never a higher one.
        (["linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/amd64/v4"], "linux/amd64/v3", 2),
        (["linux/amd64", "linux/amd64/v3"], "linux/amd64/v2", 0),
        (["linux/amd64/v2"], "linux/amd64", None),
        (["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm/v7", 1),
        (["linux/arm/v5", "linux/arm/v7"], "linux/arm/v6", 0),
        (["linux/arm/v7"], "linux/arm/v6", None),
        (["linux/arm64/v8"], "linux/arm64", 0),
        (["linux/arm64/v9"], "linux/arm64", None),
        (["linux/arm64", "linux/arm64/v8.2"], "linux/arm64/v8.4", 1),
        # What needs another system-call table than the native one is not chosen.
        (["linux/386"], "linux/amd64", None),
        (["linux/arm/v7"], "linux/arm64", None),
        # Equal ones: the first, as the index's maker ordered them.
        (["linux/amd64", "linux/amd64"], "linux/amd64", 0),
        (["windows(10.0.17763.1)/amd64", "windows(10.0.20348.9)/amd64"], "windows(10.0.20348.1)/amd64", 1),
        (["windows(10.0.17763.1)/amd64"], "windows(10.0.20348)/amd64", None),
        ([], "linux/amd64", None),
    ],
)
def test_the_best_of_an_index_is_chosen(offered: list[str], wanted: str, expected: int | None) -> None:
    assert choose([of(each) for each in offered], of(wanted)) == expected


def test_an_image_that_needs_features_is_only_for_who_has_them() -> None:
    picky = Platform("linux", "amd64", os_features=("sse9",))
    plain = Platform("linux", "amd64")
    assert choose([picky, plain], plain) == 1
    assert choose([picky], plain) is None
    assert choose([picky], picky) == 0


def test_an_entry_without_a_platform_is_the_last_resort() -> None:
    wanted = Platform("linux", "amd64")
    assert choose([None, wanted], wanted) == 1
    assert choose([None, Platform("linux", "arm64")], wanted) == 0
    assert choose([None, None], wanted) is None


platforms = st.builds(
    Platform.of,
    st.sampled_from(["linux", "windows"]),
    st.sampled_from(["amd64", "arm64", "arm"]),
    st.sampled_from(["", "v1", "v2", "v7", "v8", "v9", "odd"]),
)


@given(st.lists(platforms, max_size=8), platforms)
def test_what_is_chosen_fits_and_nothing_that_fits_is_missed(offered: list[Platform], wanted: Platform) -> None:
    chosen = choose(offered, wanted)
    assert (chosen is None) == (not any(fits(each, wanted) for each in offered))
    assert chosen is None or fits(offered[chosen], wanted)


@given(platforms)
def test_normalising_twice_changes_nothing(platform: Platform) -> None:
    assert Platform.of(platform.os, platform.architecture, platform.variant) == platform
